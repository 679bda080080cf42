# mypy: ignore-errors
"""A script as the foreign SDK's documentation shows it: worker and client in one process, for as long as it needs them."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module

from polos import Polos
from polos.core.workflow import get_workflow


async def main() -> None:
    for module in sys.argv[1:]:
        import_module(f"tests.conformance.workflows.{module}")
    async with Polos() as polos:
        results = [await get_workflow(name).run(polos, timeout=40) for name in ("plain", "plain", "gathers")]
    print(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main())
