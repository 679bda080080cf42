"""Cancel, and clean up: the steps of a run that is cancelled are told, undo what they have begun, and only then has it ended.

In this directory, with the worker left running:

    dormice worker cancel
    dormice runs start rent --payload '"/tmp/room-7"'
    dormice runs cancel RUN-ID --wait

Cancelling a run also cancels all runs and commands that it has asked for.
"""

import asyncio
from pathlib import Path

from dormice.workflows import Context, workflow


async def live_in(room: Path) -> None:
    """Take a room, stay until told to go, and leave it as it was found."""
    await asyncio.to_thread(room.touch, exist_ok=False)
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.to_thread(room.unlink)


@workflow
async def rent(ctx: Context, room: str) -> None:
    """Live in a room."""
    await ctx.step("live", live_in, Path(room))
