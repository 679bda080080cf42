"""Event trigger: each event of a topic starts a run; here, events that come close together share one.

In this directory, with the worker left running:

    dormice worker trigger
    dormice events publish measurements --data '{"celsius": 21.5}'
    dormice events publish measurements --data '{"celsius": 22.5}'
    dormice runs list --workflow average
"""

from dormice.workflows import Context, Events, Trigger, workflow


@workflow(trigger=Trigger("measurements", batch_size=100, batch_timeout=1))
async def average(_ctx: Context, batch: Events) -> float:
    """Average what was measured, of a hundred events, or of those of one second."""
    measured = [event.data["celsius"] for event in batch.events]
    return float(sum(measured) / len(measured))
