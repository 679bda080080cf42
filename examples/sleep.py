"""Sleep: a run that waits for a second, or for a year, holds no worker, and no restart makes it forget.

In this directory, with the worker left running:

    dormice worker sleep
    dormice runs start reminder --payload '{"text": "tea is ready", "seconds": 3}' --wait
"""

from dataclasses import dataclass

from dormice.workflows import Context, workflow


@dataclass
class Reminder:
    """What to say, and when."""

    text: str
    seconds: float


@workflow
async def reminder(ctx: Context, wanted: Reminder) -> str:
    """Wait, then say it."""
    began = await ctx.now("began")  # a clock differs each time it is read: so that is a step, too
    await ctx.sleep("wait", wanted.seconds)
    ended = await ctx.now("ended")
    return f"{wanted.text} (after {(ended - began).total_seconds():.0f} s)"
