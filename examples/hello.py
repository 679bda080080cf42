"""Hello: the smallest workflow.

In this directory, with the worker left running:

    dormice worker hello
    dormice runs start hello --payload '"Ada"' --wait
"""

from dormice.workflows import Context, workflow


@workflow
async def hello(_ctx: Context, name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"
