"""Human approval: a run asks people, and goes on with their answer.

In this directory, with the worker left running:

    dormice worker approval
    dormice runs start refund --payload 5000
    dormice runs resume RUN-ID approve --data '{"approved": true}'
    dormice runs get RUN-ID --wait

Or answer on the page that the server has for it: http://127.0.0.1:7433/approve/RUN-ID/approve
"""

from dataclasses import dataclass

from dormice.workflows import Context, workflow


@dataclass
class Decision:
    """What people answer."""

    approved: bool
    comment: str = ""


@workflow
async def refund(ctx: Context, cents: int) -> str:
    """Refund small sums at once, and ask before great ones."""
    if cents > 1000:
        form = {
            "title": f"Refund {cents} cents?",
            "fields": [{"key": "approved", "type": "boolean"}, {"key": "comment", "type": "text"}],
        }
        decision = await ctx.suspend("approve", {"_form": form}, returns=Decision)
        if not decision.approved:
            return f"refused {decision.comment}".rstrip()
    return f"refunded {cents} cents"
