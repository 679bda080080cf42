"""Previews, from a real client through a real server into a program of a machine."""
