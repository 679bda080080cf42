"""What runs in the peers' own environments: workers and clients. But for our own, they import nothing of Dormice."""
