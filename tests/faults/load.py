"""Many clients at once, which ask again with the same key until they are answered, and write down what they asked and were told."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from tests.faults.commands import Command, Echoes, Writes, lines
from tests.faults.history import STREAMS, TERMINAL, Asked, Entry, History
from tests.faults.stack import Victim
from tests.wait import others_run

MARKS = "/root/marks"
"""Where commands on real machines leave their marks."""
ANSWER_SECONDS = 60.0
"""A client that has no answer for so long says that it never gets one."""
SETTLE_SECONDS = 90.0
AGAIN_SECONDS = 0.1
SEGMENT_BYTES = 16 << 10
_DONE = {200, 202}
_REFUSED = {404, 409}
_COME_AGAIN = {429, 503}


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


class Load:
    """The clients. Everything random is drawn from `random`."""

    def __init__(self, victim: Victim, history: History, random: Random) -> None:
        self._victim = victim
        self._history = history
        self._random = random
        self._stopping = False
        self._clients: list[asyncio.Task[None]] = []
        self._http = httpx.AsyncClient(
            base_url=victim.live.base_url,
            headers={"Authorization": f"Bearer {victim.live.api_key}"},
            timeout=30,
            trust_env=False,
            limits=httpx.Limits(),
        )
        self.in_flight = 0
        """Executions that were acknowledged and have not ended, as far as the clients know."""
        self.most_in_flight = 0
        self.machines = Machines((), (), (), ())

    # Life

    async def begin(self, *, clients: int, calm: int = 4, memory_mib: int = 256) -> None:
        """Make the machines and let the clients loose. A tenth of the clients sends work to machines that do not stay awake."""
        made = [await self._make_machine(memory_mib, "never") for _ in range(calm + 2)]
        dozing = await self._make_machine(memory_mib, "1s")
        self.machines = Machines(tuple(made[:calm]), (dozing,), (made[calm],), (made[calm + 1],))
        self._history.disturbed |= {*self.machines.sleepy, *self.machines.mortal}
        few = max(clients // 20, 2)
        works = [
            *[(self._busy, self.machines.calm)] * (clients - 2 * few - 5),
            *[(self._busy, self.machines.sleepy)] * few,
            *[(self._busy, self.machines.mortal)] * few,
            *[(self._now_and_then, self.machines.dozing)] * 2,
        ]
        for work, machines in works:
            self._start(lambda work=work, machines=machines: work(machines))  # type: ignore[misc]
        self._start(lambda: self._put_to_sleep(self.machines.sleepy))
        self._start(lambda: self._kill(self.machines.mortal))
        self._start(lambda: self._come_and_go(memory_mib))

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._clients.append(asyncio.get_running_loop().create_task(self._until_stopped(work)))

    async def _until_stopped(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self._stopping:
            await work()

    def check(self) -> None:
        """Raise what a client has died of."""
        for client in self._clients:
            if client.done():
                client.result()

    async def end(self) -> None:
        """Ask for nothing more, and wait until all that was asked for has ended."""
        self._stopping = True
        _, stuck = await asyncio.wait(self._clients, timeout=SETTLE_SECONDS)
        if stuck:
            self._history.strange.append(f"in a way that {len(stuck)} clients never got to their end")
        for client in stuck:
            client.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        self.check()
        await self._http.aclose()

    # What clients do

    async def _busy(self, machines: tuple[str, ...]) -> None:
        await self._run(self._random.choice(machines), self._command())

    async def _now_and_then(self, machines: tuple[str, ...]) -> None:
        await others_run(self._random.uniform(0, 2.5))
        await self._run(self._random.choice(machines), Writes(1, 20, 0))

    async def _put_to_sleep(self, machines: tuple[str, ...]) -> None:
        await others_run(self._random.uniform(1, 4))
        await self._ask("POST", f"/v1/machines/{self._random.choice(machines)}/sleep", key=self._key("sleep"))

    async def _kill(self, machines: tuple[str, ...]) -> None:
        await others_run(self._random.uniform(1, 4))
        self._victim.kill_machine(self._random.choice(machines))

    async def _come_and_go(self, memory_mib: int) -> None:
        machine = await self._make_machine(memory_mib, "never", wait_ms=0)
        if not machine:
            return
        await asyncio.gather(*(self._run(machine, Writes(2, 5, 0.1)) for _ in range(2)))
        self._history.disturbed.add(machine)
        self._history.unseen |= set() if self._victim.live.driver == "process" else {machine}
        doomed = asyncio.get_running_loop().create_task(self._run(machine, Writes(10, 5, 0.2)))
        await others_run(self._random.uniform(0, 0.5))
        await self._ask("DELETE", f"/v1/machines/{machine}", key=self._key("delete"), params={"wait_ms": 20_000})
        await doomed

    async def _make_machine(self, memory_mib: int, autosleep: str, wait_ms: int = 20_000) -> str:
        key = self._key("machine")
        made = self._history.machines_asked[key]
        body = {"memory_mib": memory_mib, "storage_gib": 1, "autosleep": autosleep}
        options: dict[str, Any] = {"json": body, "params": {"wait_ms": wait_ms}}
        if wait_ms == 0 and (answer := await self._ask_impatiently("/v1/machines", key, options)):
            made.add(answer["machine_id"])
        answer = await self._ask("POST", "/v1/machines", key=key, **options)
        made |= {answer["machine_id"]} if answer else set()
        return str(answer["machine_id"]) if answer else ""

    def _command(self) -> Command:
        random = self._random
        match random.choices(("stream", "short", "flood", "echo"), (60, 20, 5, 15))[0]:
            case "stream":
                return Writes(random.randint(4, 14), random.randint(5, 20), random.uniform(0.15, 0.4))
            case "short":
                return Writes(1, random.randint(0, 3), 0)
            case "flood":
                return Writes(4, random.randint(600, 1500), random.uniform(0, 0.3))
            case _:
                return Echoes(lines("standard", "in", range(random.randint(0, 5000))))

    async def _run(self, machine_id: str, command: Command) -> None:
        """Ask for an execution, and stay with it to its end."""
        asked = Asked(self._key("run"), machine_id, command)
        self._history.asked[asked.token] = asked
        record = await self._create(asked)
        if record is None:
            return
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        path = f"/v1/machines/{machine_id}/executions/{record['execution_id']}"
        try:
            if isinstance(command, Echoes):
                await self._feed(path, command.stdin)
            if self._random.random() < 0.07:
                await others_run(self._random.uniform(0, 1.5))
                asked.cancelled = True
                await self._ask("DELETE", path)
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
        elif self._random.random() < 0.15:
            if record := await self._ask_impatiently(path, asked.token, {"json": body}):
                asked.answered.append(record["execution_id"])
            if self._random.random() < 0.2:
                return None  # whether there is one, nobody was told
        record = await self._ask("POST", path, key=asked.token, refused=asked, json=body)
        if record is None:
            if asked.machine_id in self._victims_awake():
                await self._ask("POST", f"/v1/machines/{asked.machine_id}/wake", key=self._key("wake"))
            return None
        asked.answered.append(record["execution_id"])
        return record

    def _victims_awake(self) -> set[str]:
        return {*self.machines.sleepy, *self.machines.mortal}

    async def _feed(self, path: str, data: bytes) -> None:
        """Write standard input segment by segment, a few bytes of each once more with the next."""
        offset = 0
        while True:
            segment = data[offset : offset + SEGMENT_BYTES]
            eof = offset + len(segment) == len(data)
            params = {"offset": offset, "eof": str(eof).lower()}
            if await self._ask("PUT", f"{path}/stdin", params=params, content=segment) is None or eof:
                return
            offset += max(len(segment) - 10, 1)

    async def _follow(self, path: str, execution_id: str) -> None:
        """Read the log as it grows, over as many connections as it takes."""
        told = self._history.followed[execution_id] = []
        while not (told and told[-1].state in TERMINAL):
            params = {"cursor": told[-1].sequence if told else 0, "wait_ms": 5_000, "encoding": "base64"}
            page = await self._ask("GET", f"{path}/events", params=params)
            if page is None:
                return
            told += [_entry(item) for item in page["items"]]

    async def _wait(self, path: str) -> None:
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            record = await self._ask("GET", path, params={"wait_ms": 5_000})
            if record is None or record["status"] in TERMINAL:
                return

    # How they ask

    def _key(self, kind: str) -> str:
        return f"{kind}-{self._random.getrandbits(48):012x}"

    async def _ask(
        self, method: str, path: str, *, key: str = "", refused: Asked | None = None, **options: Any
    ) -> dict[str, Any] | None:
        """Ask until there is an answer. None if it is a refusal, which is written down in `refused`."""
        headers = {"Idempotency-Key": key} if key else {}
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            with suppress(httpx.TransportError):
                answer = await self._http.request(method, path, headers=headers, **options)
                if answer.status_code in _DONE:
                    return dict(answer.json())
                if answer.status_code in _REFUSED:
                    if refused is not None:
                        refused.refused = answer.text
                    return None
                if answer.status_code not in _COME_AGAIN:
                    self._history.strange.append(f"{answer.status_code} to {method} {path}: {answer.text[:200]}")
                    return None
            await others_run(self._random.uniform(0.5, 1) * AGAIN_SECONDS)
        self._history.strange.append(f"never to {method} {path}")
        return None

    async def _ask_impatiently(self, path: str, key: str, options: dict[str, Any]) -> dict[str, Any] | None:
        """Ask, and go away before the answer, most of the time."""
        with suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(self._random.uniform(0, 0.02)):
                answer = await self._http.post(path, headers={"Idempotency-Key": key}, **options)
                return dict(answer.json()) if answer.status_code in _DONE else None
        return None


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
