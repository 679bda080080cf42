"""The command line. Each command is one module, loaded when it is asked for: start-up time is what its users feel.

Commands print what the server sends, so that a new field of the server shows without a new command line.
"""
