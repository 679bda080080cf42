"""The benchmark suite: Dormice, its peers and physical limits, side by side in one run. `python -m bench --help`."""
