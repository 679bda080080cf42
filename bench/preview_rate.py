"""(16) What the proxy of previews costs: a web server in a machine through a preview, and the same one on the host, reached directly."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter

import uvloop

from bench.figures import Result
from bench.stack import Record, Stack, free_port
from bench.wire import BadAnswer, Connection, load, request
from bench.workbench import Workbench

TITLE = "(16) a web server in a machine through a preview, and the same on the host, reached directly"
LANES = 32
PORT = 8000
SMALL, LARGE = "/small", "/large"
LARGE_BYTES = 32 << 20
_SERVER = """
import asyncio
small = b"HTTP/1.1 200 OK\\r\\ncontent-length: 3\\r\\n\\r\\nok\\n"
large = b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n"

async def serve(reader, writer):
    piece = bytes(1 << 16)
    while True:
        try:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        if b" /large " not in head:
            writer.write(small)
            continue
        writer.write(large % LARGE)
        for _ in range(LARGE // len(piece)):
            writer.write(piece)
            await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT)
    await server.serve_forever()

asyncio.run(main())
"""


def run(bench: Workbench) -> Result:
    result = Result("preview-rate", TITLE)
    stack = bench.stack
    program = _SERVER.replace("LARGE", str(LARGE_BYTES)).replace("PORT", str(PORT))
    with stack.machine() as machine, stack.connect() as connection, _on_the_host(program) as direct:
        stack.execute(connection, machine, ["python3", "-c", program], wait_ms=0)
        stack.finish(
            connection, machine, ["bash", "-c", f"until (: </dev/tcp/127.0.0.1/{PORT}) 2>/dev/null; do :; done"]
        )
        ways = {
            "directly": (direct, ""),
            "through a preview": (stack.address, _preview(stack, connection, machine)),
        }
        result.section("one request after the other")
        for name, (address, prefix) in ways.items():
            result.add(name, "ms", (1000 * took for took in _in_turn(address, prefix, bench.amount(3_000, 500))))
        result.section(f"{LANES} at a time")
        for name, (address, prefix) in ways.items():
            result.add(name, "1/s", (_rate(address, prefix, bench.amount(10_000, 1_500)) for _ in range(3)))
        result.section(f"a body of {LARGE_BYTES >> 20} MiB")
        for name, (address, prefix) in ways.items():
            result.add(name, "MB/s", (_speed(address, prefix) for _ in range(bench.amount(10, 3))))
    return result


@contextmanager
def _on_the_host(program: str) -> Iterator[tuple[str, int]]:
    address = ("127.0.0.1", free_port())
    own = program.replace(str(PORT), str(address[1]))
    process = subprocess.Popen(["/usr/bin/python3", "-c", own])
    try:
        while True:
            with suppress(OSError), Connection(address):
                break
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def _preview(stack: Stack, connection: Connection, machine: str) -> str:
    body: Record = {"port": PORT, "visibility": "public"}
    made = connection.ask(stack.request("POST", f"/v1/machines/{machine}/previews", body)).json()
    return f"/p/{made['preview_id']}"


def _asked(prefix: str, path: str) -> bytes:
    return request("GET", prefix + path, {"Host": "bench"})


def _in_turn(address: tuple[str, int], prefix: str, rounds: int) -> list[float]:
    message, took = _asked(prefix, SMALL), []
    with Connection(address) as connection:
        for _ in range(rounds):
            began = perf_counter()
            _check(connection.ask(message).status)
            took.append(perf_counter() - began)
    return took


def _rate(address: tuple[str, int], prefix: str, rounds: int) -> float:
    message, left = _asked(prefix, SMALL), iter(range(rounds))
    began = perf_counter()
    uvloop.run(
        load(
            address,
            LANES,
            lambda: None if next(left, None) is None else message,
            lambda _, answer: _check(int(answer[9:12])),
        )
    )
    return rounds / (perf_counter() - began)


def _speed(address: tuple[str, int], prefix: str) -> float:
    with Connection(address) as connection:
        began = perf_counter()
        answer = connection.ask(_asked(prefix, LARGE))
        took = perf_counter() - began
    if len(answer.body) != LARGE_BYTES:
        raise BadAnswer(f"{len(answer.body)} bytes of {LARGE_BYTES}")
    return LARGE_BYTES / took / 1e6


def _check(status: int) -> None:
    if status != 200:
        raise BadAnswer(f"status {status}")
