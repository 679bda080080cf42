"""Compares documents with the schemas that workers register, and is never held up by one.

Where the work is known to be little it is done at once. All other work, and telling why a document does not fit, is for a few processes whose
processor time is limited. An organization has one of them at a time, so that its schemas wait for each other and not others' for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from functools import lru_cache
from typing import Never, ParamSpec, TypeVar

from dormice.domain.errors import Unavailable
from dormice.domain.run import Json
from dormice.engine.runs import schema_cost
from dormice.engine.runs.schema_program import LENGTH, QUESTION, TOO_LONG, YES
from dormice.engine.runs.schemas import UNTOLD, fits, problem
from dormice.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

PROCESSES = 2
STEPS_AT_ONCE = 300_000
"""About 15 ms at worst, and far less as a rule: the bound knows of a document only how long it is."""
SECONDS_AT_ONCE = 0.01
"""Of all documents in one turn of the loop; then others have their turn first."""
_MIB = 1 << 20
_PATIENCE = 100
"""How often over its processor time a question may take, on a host that has none for it."""
_PROGRAM = ("-m", "dormice.engine.runs.schema_program")

_TOO_MUCH = (-TOO_LONG, -signal.SIGABRT, -signal.SIGSEGV)
"""Time; memory; stack."""

_steps = lru_cache(2048)(schema_cost.steps)


class TooCostly(Exception):
    """It takes more processor time than it may."""


class SchemaChecks:
    """`milliseconds`: of processor time, for each MiB begun of schema and document. Raises TooCostly, Unavailable."""

    def __init__(self, milliseconds: int) -> None:
        self.milliseconds = milliseconds
        self._spent = 0.0
        """Seconds of this turn of the loop."""
        self._pausing = asyncio.Lock()
        self._turns = Turns(PROCESSES)
        self._all: set[Process] = set()
        self._idle: list[Process] = []
        self._stopped = False

    def fits_at_once(self, schema: Json, document: Json) -> bool:
        """Whether it is seen at once that a document fits; False says nothing."""
        steps = _steps(schema)
        if steps is None or steps * len(document) > STEPS_AT_ONCE or self._spent > SECONDS_AT_ONCE:
            return False
        return self._timed(fits, schema, document)

    async def problem(self, organization_id: str, schema: Json) -> str | None:
        """Say why something is no schema; None if it is one."""
        if _steps(schema) is None:
            return await self._ask(organization_id, schema, b"")
        await self._pause()
        return self._timed(problem, schema)

    async def misfit(self, organization_id: str, schema: Json, document: Json) -> str | None:
        """Say where and why a document does not fit, as `schemas.misfit` does; None if it fits."""
        await self._pause()
        if self.fits_at_once(schema, document):
            return None
        return await self._ask(organization_id, schema, document)

    async def serve(self) -> Never:
        """End the processes when it is cancelled: the server stops."""
        try:
            while True:
                await asyncio.get_running_loop().create_future()
        finally:
            self._stopped = True
            for process in self._all:
                _kill(process)
            for process in list(self._all):
                await process.wait()

    def _timed(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        if not self._spent:
            asyncio.get_running_loop().call_soon(self._refill)
        began = time.perf_counter()
        try:
            return work(*arguments, **named)
        finally:
            self._spent += time.perf_counter() - began

    def _refill(self) -> None:
        self._spent = 0.0

    async def _pause(self) -> None:
        """Let others have the loop, if much was done at once in this turn of it."""
        if self._spent > SECONDS_AT_ONCE:
            async with self._pausing:
                if self._spent > SECONDS_AT_ONCE:
                    await asyncio.sleep(0)

    async def _ask(self, organization_id: str, schema: Json, document: Json) -> str | None:
        milliseconds = self.milliseconds * (1 + (len(schema) + len(document)) // _MIB)
        async with self._turns.turn(organization_id):
            process = await self._process()
            try:
                async with asyncio.timeout(_PATIENCE * milliseconds / 1000):
                    answer = await _answer(process, milliseconds, schema, document)
            except asyncio.IncompleteReadError as error:  # it has died
                if await process.wait() in _TOO_MUCH:
                    raise TooCostly from None
                raise Unavailable("what compares documents with schemas was killed") from error
            except (OSError, TimeoutError) as error:
                raise Unavailable(
                    "what compares documents with schemas has no processor time, or was killed"
                ) from error
            else:
                if process.returncode is None:
                    self._idle.append(process)
                return answer
            finally:
                if process not in self._idle:
                    _kill(process)
                    await process.wait()
                    self._all.discard(process)

    async def _process(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
            self._all.discard(process)
        if self._stopped:
            raise Unavailable("the server is stopping")
        environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *_PROGRAM, stdin=PIPE, stdout=PIPE, env=environment
            )
        except OSError as error:
            raise Unavailable(f"no process can be started to compare with a schema: {error}") from error
        self._all.add(process)
        return process


async def _answer(process: Process, milliseconds: int, schema: Json, document: Json) -> str | None:
    asked, answers = process.stdin, process.stdout
    assert asked is not None  # noqa: S101 - both are pipes
    assert answers is not None  # noqa: S101
    asked.writelines((QUESTION.pack(milliseconds, len(schema), len(document)), schema, document))
    await asked.drain()
    if await answers.readexactly(1) == YES:
        return None
    try:
        (length,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
        return (await answers.readexactly(length)).decode()
    except asyncio.IncompleteReadError:
        if await process.wait() in _TOO_MUCH:
            return UNTOLD
        raise


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
