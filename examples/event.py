"""Wait for an event: what happens elsewhere lets a run go on.

In this directory, with the worker left running:

    dormice worker event
    dormice runs start ship --payload 42
    dormice events publish orders/42/paid --data '{"cents": 450}'
    dormice runs get RUN-ID --wait

An event that comes before the run waits for it is not lost.
"""

from dataclasses import dataclass

from dormice.workflows import Context, EventTimeout, workflow


@dataclass
class Payment:
    """What the event says."""

    cents: int


@workflow
async def ship(ctx: Context, number: int) -> str:
    """Ship an order once it is paid, and give it up after a day."""
    try:
        payment = await ctx.event("paid", f"orders/{number}/paid", timeout=24 * 3600, returns=Payment)
    except EventTimeout:
        return f"order {number} was given up"
    return f"order {number} is shipped: {payment.cents} cents were paid"
