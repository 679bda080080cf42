"""Schedule: a workflow that runs by itself at set times.

In this directory, with the worker left running:

    dormice worker schedule
    dormice schedules list
    dormice runs list --workflow report
    dormice schedules pause SCHEDULE-ID

Schedules can also be made from outside: dormice schedules create report '0 8 * * mon-fri' --timezone Europe/Vienna --key morning
"""

from dormice.workflows import Context, Schedule, Tick, workflow


@workflow(schedule=Schedule("* * * * *", timezone="Europe/Vienna"))
async def report(_ctx: Context, tick: Tick) -> str:
    """Say for which minute it is: the time of the schedule, also when the run begins late."""
    return f"report of {tick.timestamp:%H:%M}"
