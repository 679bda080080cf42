"""Commands on machines as steps of runs: begun once, however often the step is; the run goes on with the record of the end.

The end of a command is told to its run in a transaction of its own, after the one that recorded the end. What a crash leaves in
between is told at the next start.
"""

from __future__ import annotations

from functools import partial

from dormice.crash_points import CrashPoint, reached
from dormice.domain.errors import NotFound
from dormice.domain.execution import Execution
from dormice.domain.run import Run, WaitKind
from dormice.engine.clock import Clock
from dormice.engine.executions import Executions
from dormice.engine.observer import Observer
from dormice.engine.orders import Caller, ExecutionOrder
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.waits import cannot_wait
from dormice.engine.tasks import Tasks
from dormice.store.interface import NewExecution
from dormice.store.workflows import Attempt, Command, Refused, RunStore


class EndsOfCommands(Observer):
    """Hears of every execution that ends, and passes on those that are steps of runs."""

    def __init__(self) -> None:
        self._commands: Commands | None = None

    def bind(self, commands: Commands) -> None:
        """Know who is told."""
        self._commands = commands

    def finished(self, execution: Execution) -> None:
        """Pass it on."""
        if self._commands is not None:
            self._commands.finished(execution)


class Commands:
    """Raises NotFound, Conflict, MachineConflict, RateLimited, StoreUnavailable."""

    def __init__(self, *, store: RunStore, executions: Executions, ledger: Ledger, tasks: Tasks, clock: Clock) -> None:
        self._store = store
        self._executions = executions
        self._ledger = ledger
        self._tasks = tasks
        self._clock = clock
        self._open: dict[str, Command] = {}
        """By the id of the execution."""

    async def load(self) -> None:
        """Rebuild memory from the store, and tell what could not be told before."""
        for command in await self._store.open_commands():
            self._open[command.execution.id] = command
            if command.execution.terminal:
                self.finished(command.execution)

    async def begin(
        self, caller: Caller, run: Run, attempt: Attempt, step_key: str, machine_id: str, order: ExecutionOrder
    ) -> None:
        """Have a command run as a step of a run, which waits for its end. In a task that nobody cancels."""
        # This counts first: a worker whose run is over does not wait for the machine.
        if run.closed or not attempt.holds(run):
            raise cannot_wait(Refused(run=run))

        async def commit(new: NewExecution) -> Execution | None:
            begun = await self._store.begin_command(run.id, attempt, step_key, new)
            if isinstance(begun, Refused):
                raise cannot_wait(begun)
            reached(CrashPoint.COMMAND_BEGUN)
            if begun.execution is not None:
                self._open[begun.execution.id] = Command(run_id=run.id, step_key=step_key, execution=begun.execution)
            self._ledger.unwinds(run.id, begun.changed)
            self._ledger.apply(begun.changed)
            self._ledger.waits_for(run.id, {step_key: WaitKind.EXECUTION})
            return begun.execution

        await self._executions.create_with(caller, machine_id, order, commit)

    def finished(self, execution: Execution) -> None:
        """Hear that an execution has ended."""
        if execution.id in self._open:
            self._tasks.start(f"end of {execution.id}", lambda: self._tell(execution.id))

    async def _tell(self, execution_id: str) -> None:
        told = await self._store.end_command(execution_id, now=self._clock.now())
        reached(CrashPoint.COMMAND_TOLD)
        self._open.pop(execution_id, None)
        self._ledger.apply(told.changed)

    def cancel(self, run: Run) -> None:
        """End the commands of a run whose end was asked for: the run ends when all of them have."""
        for command in [one for one in self._open.values() if one.run_id == run.id]:
            execution = command.execution
            self._tasks.start(f"cancel of {execution.id}", partial(self._cancel, execution))

    async def _cancel(self, execution: Execution) -> None:
        caller = Caller(organization_id=execution.organization_id, key_id="", admin=False)
        try:
            await self._executions.cancel(caller, execution.machine_id, execution.id)
        except NotFound:  # it has ended long ago, and was deleted
            await self._tell(execution.id)
