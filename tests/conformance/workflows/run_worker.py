# mypy: ignore-errors
"""A worker of the foreign SDK, run by that SDK's own interpreter: serves the workflows of the modules that it is given.

    .sdks/polos-VERSION/bin/python -m tests.conformance.workflows.run_worker MODULE…

It listens on port 8000, as every worker of this SDK does. Its settings are the SDK's environment variables.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module

from polos import Polos


async def main(modules: list[str]) -> None:
    for module in modules:
        import_module(f"tests.conformance.workflows.{module}")
    await Polos().serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
