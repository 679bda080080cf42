"""The machine surface: machines and their executions."""
