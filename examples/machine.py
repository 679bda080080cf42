"""Commands as steps: a workflow has commands run on an isolated machine, each of them once.

In this directory, with the worker left running:

    dormice worker machine
    dormice machines create --wait
    dormice runs start build --payload '"MACHINE-ID"' --wait
    dormice machines executions list --machine-id MACHINE-ID

While a command runs, the run holds no worker. Server, worker and node may be restarted meanwhile; cancelling the run ends the command.
"""

from dormice.workflows import Context, NonRetryable, workflow

SCRIPT = "echo 'int main(void) { return 0; }' > main.c && grep -c main main.c"


@workflow
async def build(ctx: Context, machine_id: str) -> dict[str, object]:
    """Run two commands, the second one only if the first was good."""
    made = await ctx.exec("make", machine_id, ["sh", "-c", SCRIPT], timeout=60)
    if not made.succeeded:
        raise NonRetryable(f"{made.execution_id} ended with {made.exit_code}")
    seen = await ctx.exec("look", machine_id, ["sh", "-c", "test -s main.c && exit 3"])
    return {"make": made.execution_id, "exit codes": [made.exit_code, seen.exit_code]}
