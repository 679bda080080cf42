"""Children: one run asks for ten others, which run wherever there is a worker, and waits once for all of them.

In this directory, with the worker left running:

    dormice worker children
    dormice runs start fan_out --payload 10 --wait
    dormice runs children RUN-ID
"""

from dormice.workflows import Context, Queue, workflow


@workflow(queue=Queue("squares", limit=4))
async def square(_ctx: Context, number: int) -> int:
    """One piece of work. Its queue lets four of them run at once, over all workers."""
    return number * number


@workflow
async def fan_out(ctx: Context, count: int) -> int:
    """Add the squares of the first numbers. While it waits it is nowhere but in the server's file."""
    squares = await ctx.gather(*(ctx.child(f"square {number}", square, number) for number in range(count)))
    return sum(squares)
