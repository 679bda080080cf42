"""What is legal: states, transitions, ids, errors. Pure: no I/O, no clock, no randomness of its own."""
