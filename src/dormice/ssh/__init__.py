"""The SSH server: logs in the holders of SSH sessions, and turns what they open into channels into their machines."""
