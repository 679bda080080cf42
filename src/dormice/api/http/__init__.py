"""What HTTP asks of every route: identity, bodies, errors, pages, streams."""
