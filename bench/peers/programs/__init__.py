"""What runs in the peers' own environments: workers and clients. They import nothing of Dormice."""
