"""The engine of runs: durable workflow functions, what workers offer, and who runs what."""
