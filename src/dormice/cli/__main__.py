"""`python -m dormice.cli`."""

from __future__ import annotations

from dormice.cli.main import main

if __name__ == "__main__":
    main()
