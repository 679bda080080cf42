"""Steps and retries: what a step returns is recorded, and is never done again; what fails is tried again.

In this directory, with the worker left running:

    dormice worker steps
    dormice runs start order --payload '{"article": "tea", "cents": 450}' --wait
    dormice runs steps RUN-ID

Kill the worker while it runs, start it again, and see: the card is charged once.
"""

from dataclasses import dataclass
from itertools import count
from uuid import uuid4

from dormice.workflows import Context, NonRetryable, Retry, workflow

_calls = count(1)


@dataclass
class Order:
    """What somebody wants."""

    article: str
    cents: int


@dataclass
class Receipt:
    """What the bank says. A result is written as JSON, and read back as what the function says that it returns."""

    number: str
    cents: int


async def charge(cents: int) -> Receipt:
    """Take the money, from a bank that answers every third call."""
    if cents <= 0:
        raise NonRetryable("nothing to pay")  # another try would not help
    if next(_calls) % 3:
        raise ConnectionError("the bank does not answer")
    return Receipt(number=uuid4().hex, cents=cents)


def pack(article: str) -> str:
    """A plain function: it is run on a thread, so that it may block."""
    return f"a parcel of {article}"


@workflow
async def order(ctx: Context, wanted: Order) -> str:
    """Charge, then pack."""
    receipt = await ctx.step("charge", charge, wanted.cents, retry=Retry(attempts=5, first_pause=0.1))
    parcel = await ctx.step("pack", pack, wanted.article)
    return f"{parcel}, paid with receipt {receipt.number}"
