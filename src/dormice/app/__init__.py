"""The composition root: only its modules name adapters. `up`, `server` and `node` are the three processes, each loads what it needs."""
