"""Webhooks: what their owners may ask, and how events get to them."""
