"""The ways to workers: users' processes that run workflow functions."""
