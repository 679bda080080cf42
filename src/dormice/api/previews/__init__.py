"""Previews: their routes, and the reverse proxy that serves what they stand for."""
