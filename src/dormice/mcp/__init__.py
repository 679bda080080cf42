"""`dormice mcp`: machines as tools of the Model Context Protocol. Needs the package `mcp` (`dormice[mcp]`); knows the client alone."""
