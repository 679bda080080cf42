"""Many clients at once, which ask again with the same key until they are answered, and write down what they asked and were told."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.faults.clients import POLL_MS, SETTLE_SECONDS, Clients
from tests.faults.commands import Command, Echoes, Writes, lines
from tests.faults.history import STREAMS, TERMINAL, Asked, Entry, History
from tests.faults.stack import Victim
from tests.faults.wire import Request
from tests.wait import others_run

MARKS = "/root/marks"
"""Where commands on real machines leave their marks."""
SEGMENT_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines of a load, by what happens to them."""

    calm: tuple[str, ...]
    """Nothing."""
    dozing: tuple[str, ...]
    """They fall asleep when they are idle, and are woken by what is asked of them: that may end nothing."""
    sleepy: tuple[str, ...]
    """They are put to sleep whatever they do."""
    mortal: tuple[str, ...]
    """Their process 1 is killed."""


class Load(Clients):
    """The clients. Everything random is drawn from `random`."""

    def __init__(self, victim: Victim, history: History, random: Random, *, leave: float = 0.2) -> None:
        """`leave`: the share of those who went away before the answer and do not come back to ask again."""
        super().__init__(victim, history.strange, random)
        self._history = history
        self._leave = leave
        self.machines = Machines((), (), (), ())

    async def begin(self, *, clients: int, calm: int = 4, memory_mib: int = 256) -> None:
        """Make the machines and let the clients loose. A tenth of the clients sends work to machines that do not stay awake."""
        made = [await self.make_machine(memory_mib, "never") for _ in range(calm + 2)]
        dozing = await self.make_machine(memory_mib, "1s")
        self.machines = Machines(tuple(made[:calm]), (dozing,), (made[calm],), (made[calm + 1],))
        self._history.disturbed |= {*self.machines.sleepy, *self.machines.mortal}
        few = max(clients // 20, 2)
        works = [
            *[(self._busy, self.machines.calm)] * (clients - 2 * few - 6),
            *[(self._busy, self.machines.sleepy)] * few,
            *[(self._busy, self.machines.mortal)] * few,
            *[(self._now_and_then, self.machines.dozing)] * 2,
        ]
        for work, machines in works:
            self._start(lambda work=work, machines=machines: work(machines))  # type: ignore[misc]
        self._start(lambda: self._put_to_sleep(self.machines.sleepy))
        self._start(lambda: self._kill(self.machines.mortal))
        for _ in range(2):
            self._start(lambda: self._come_and_go(memory_mib))

    # What clients do

    async def _busy(self, machines: tuple[str, ...]) -> None:
        cancel_after = self._random.uniform(0, 1.5) if self._random.random() < 0.07 else None
        await self.run(self._random.choice(machines), self._command(), cancel_after=cancel_after)

    async def _now_and_then(self, machines: tuple[str, ...]) -> None:
        await others_run(self._random.uniform(0, 2.5))
        await self.run(self._random.choice(machines), Writes(1, 20, 0))

    async def _put_to_sleep(self, machines: tuple[str, ...]) -> None:
        await others_run(self._random.uniform(0.5, 2))
        await self.put_to_sleep(self._random.choice(machines))

    async def put_to_sleep(self, machine_id: str) -> None:
        """Put a machine to sleep, whatever it does."""
        self._history.disturbed.add(machine_id)
        await self._ask(Request("POST", f"/v1/machines/{machine_id}/sleep", key=self._key("sleep")))

    async def _kill(self, machines: tuple[str, ...]) -> None:
        await others_run(self._random.uniform(0.5, 2))
        self._victim.kill_machine(self._random.choice(machines))

    async def _come_and_go(self, memory_mib: int) -> None:
        machine = await self.make_machine(memory_mib, "never", wait_ms=0)
        if not machine:
            return
        await asyncio.gather(*(self.run(machine, Writes(2, 5, 0.1)) for _ in range(2)))
        self._history.disturbed.add(machine)
        self._history.unseen |= set() if self._victim.live.driver == "process" else {machine}
        doomed = asyncio.get_running_loop().create_task(self.run(machine, Writes(10, 5, 0.2)))
        await others_run(self._random.uniform(0, 0.5))
        await self._ask(Request("DELETE", f"/v1/machines/{machine}", {"wait_ms": 20_000}, self._key("delete")))
        await doomed

    async def make_machine(self, memory_mib: int, autosleep: str, wait_ms: int = 20_000) -> str:
        """Make a machine and return its id; with wait_ms, once it runs."""
        key = self._key("machine")
        made = self._history.machines_asked[key]
        body = {"memory_mib": memory_mib, "storage_gib": 1, "autosleep": autosleep}
        request = Request("POST", "/v1/machines", {"wait_ms": wait_ms}, key, body)
        if wait_ms == 0:
            await self._walk_out(request)
        answer = await self._ask(request)
        if answer is None:
            return ""
        made.add(answer["machine_id"])
        return str(answer["machine_id"])

    def _command(self) -> Command:
        random = self._random
        match random.choices(("stream", "short", "flood", "echo"), (60, 20, 5, 15))[0]:
            case "stream":
                return Writes(random.randint(4, 12), random.randint(5, 20), random.uniform(0.1, 0.3))
            case "short":
                return Writes(1, random.randint(0, 3), 0)
            case "flood":
                return Writes(4, random.randint(600, 1500), random.uniform(0, 0.3))
            case _:
                return Echoes(lines("standard", "in", range(random.randint(0, 5000))))

    async def run(self, machine_id: str, command: Command, *, cancel_after: float | None = None) -> None:
        """Ask for an execution, and stay with it to its end, which is asked for after so many seconds."""
        asked = Asked(self._key("run"), machine_id, command)
        self._history.asked[asked.token] = asked
        record = await self._create(asked)
        if record is None:
            return
        self._began()
        path = f"/v1/machines/{machine_id}/executions/{record['execution_id']}"
        try:
            if isinstance(command, Echoes):
                await self._feed(path, command.stdin)
            if cancel_after is not None:
                await others_run(cancel_after)
                asked.cancelled = True
                await self._ask(Request("DELETE", path))
            if self._random.random() < 0.1:
                await self._follow(path, record["execution_id"])
            await self._wait(path)
        finally:
            self.in_flight -= 1

    async def _create(self, asked: Asked) -> dict[str, Any] | None:
        path = f"/v1/machines/{asked.machine_id}/executions"
        process = self._victim.live.driver == "process"
        marks = str(self._victim.marks / asked.machine_id) if process else MARKS
        body: dict[str, Any] = {"command": asked.command.argv(asked.token, marks)}
        if isinstance(asked.command, Echoes):
            body["stdin_open"] = True
        request = Request("POST", path, key=asked.token, body=body)
        if self._random.random() < 0.15:
            await self._walk_out(request)
            if self._random.random() < self._leave and not isinstance(asked.command, Echoes):
                return None  # whether there is one, nobody was told
        record = await self._ask(request, refused=asked)
        if record is None:
            if asked.machine_id in {*self.machines.sleepy, *self.machines.mortal}:  # a start of it has failed
                await self._ask(Request("POST", f"/v1/machines/{asked.machine_id}/wake", key=self._key("wake")))
            return None
        asked.answered.append(record["execution_id"])
        return record

    async def _feed(self, path: str, data: bytes) -> None:
        """Write standard input segment by segment, a few bytes of each once more with the next."""
        offset = 0
        while True:
            segment = data[offset : offset + SEGMENT_BYTES]
            eof = offset + len(segment) == len(data)
            query: dict[str, str | int] = {"offset": offset, "eof": str(eof).lower()}
            if await self._ask(Request("PUT", f"{path}/stdin", query, body=segment)) is None or eof:
                return
            offset += max(len(segment) - 10, 1)

    async def _follow(self, path: str, execution_id: str) -> None:
        """Read the log as it grows, over as many connections as it takes."""
        told = self._history.followed[execution_id] = []
        while not (told and told[-1].state in TERMINAL):
            query: dict[str, str | int] = {
                "cursor": told[-1].sequence if told else 0,
                "wait_ms": POLL_MS,
                "encoding": "base64",
            }
            page = await self._ask(Request("GET", f"{path}/events", query))
            if page is None:
                return
            told += [_entry(item) for item in page["items"]]

    async def _wait(self, path: str) -> None:
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            record = await self._ask(Request("GET", path, {"wait_ms": POLL_MS}))
            if record is None or record["status"] in TERMINAL:
                return


def _entry(item: dict[str, Any]) -> Entry:
    streams = {name: number for number, name in STREAMS.items()}
    return Entry(
        item["sequence"],
        0,
        item.get("status"),
        streams.get(item["type"]),
        item.get("offset", 0),
        b64decode(item.get("chunk_base64", "")),
    )
