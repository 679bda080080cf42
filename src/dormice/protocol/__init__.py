"""The frames between server, node and guest: pure encode and decode, no I/O."""
