"""What decides: turns requests and reports into guarded store writes and messages to the node."""
