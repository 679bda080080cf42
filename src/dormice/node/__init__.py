"""Dormice."""
