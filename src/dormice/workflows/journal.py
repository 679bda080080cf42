"""What is known of one attempt of a run: the steps that are recorded, the keys that were used, what it waits for."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dormice.workflows.errors import LetGo, NonDeterministic
from dormice.workflows.messages import Child, Command, Step, Wait


class Journal:
    """A step that is recorded is not run again; what is not recorded yet is run, or waited for."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._recorded = {step.step_key: step for step in steps}
        self._asked: dict[str, tuple[str, Coroutine[Any, Any, Any]]] = {}
        """What was asked for and has not begun, by step key, and the methods it was asked by."""
        self._used: set[str] = set()
        self._under_way: set[asyncio.Task[object]] = set()
        self._idle: asyncio.Future[None] | None = None
        self.children: list[Child] = []
        self.waits: list[Wait] = []
        self.commands: list[Command] = []
        self.closed = False
        """Nothing may begin any more: the function is to unwind."""

    @property
    def waiting(self) -> bool:
        """Whether the run waits for something."""
        return bool(self.children or self.waits or self.commands)

    @property
    def never_awaited(self) -> list[str]:
        """What was asked for and could not begin, as it stands in the workflow function."""
        return [
            f"ctx.{method}({step_key!r})"
            for step_key, (method, coroutine) in self._asked.items()
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
        ]

    def ask(self, method: str, step_key: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Something is asked for, which begins when it is awaited."""
        self._asked[step_key] = method, coroutine

    def begin(self, step_key: str) -> Step | None:
        """Begin a step; return it if it is recorded. Raises NonDeterministic when the key was used before, LetGo when nothing may begin."""
        self._asked.pop(step_key, None)
        if self.closed:
            raise LetGo
        if step_key in self._used:
            raise NonDeterministic(f"step key {step_key!r} is used twice in one run: each step needs a key of its own")
        self._used.add(step_key)
        return self._recorded.get(step_key)

    def wait_for(self, what: Child | Wait | Command) -> LetGo:
        """Have the run wait for something; raise what is returned. Others that are under way may still add to it."""
        match what:
            case Child():
                self.children.append(what)
            case Wait():
                self.waits.append(what)
            case Command():
                self.commands.append(what)
        return LetGo()

    def runs(self, task: asyncio.Task[object]) -> bool:
        """Whether a step is run by a task."""
        return task in self._under_way

    @contextmanager
    def running(self) -> Iterator[None]:
        """A step is run here."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine is run by one
        self._under_way.add(task)
        try:
            yield
        finally:
            self._under_way.discard(task)
            if not self._under_way and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)

    async def settled(self) -> None:
        """Wait until no step is run any more, and let none begin."""
        self.closed = True
        while self._under_way:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def cancel(self, *, but: asyncio.Task[object] | None) -> None:
        """Cancel the steps that are run."""
        self.closed = True
        for task in self._under_way:
            if task is not but:
                task.cancel()
