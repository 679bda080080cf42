"""What an operator sees of a running Dormice: logs, metrics, traces. The engine and the API know none of it, only their ports."""
