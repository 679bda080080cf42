"""Routes about the service itself: keys, limits, health."""
