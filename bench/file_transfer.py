"""Files into a machine and out of it: large ones, many small ones, and directories as archives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from time import perf_counter

from bench.figures import Result
from bench.stack import Stack
from bench.wire import BadAnswer
from bench.workbench import Workbench
from dormice import Dormice
from dormice.client.socket_transport import SocketTransport

TITLE = "(18) files into a machine and out of it"
MIB = 1 << 20
PIECE = bytes(range(256)) * 4096
SMALL = b"x" * 4096


def run(bench: Workbench) -> Result:
    result = Result("file-transfer", TITLE)
    size = bench.amount(512, 64)
    rounds = bench.amount(5, 2)
    stack = bench.stack
    with stack.machine(storage_gib=4) as machine, _client(stack) as client:
        files = client.machines.files
        up, down, pack, unpack = [], [], [], []
        for _ in range(rounds):
            began = perf_counter()
            files.write(machine, "/big", _pieces(size), size=size * MIB)
            up.append(size / (perf_counter() - began))
            began = perf_counter()
            got = sum(map(len, files.stream(machine, "/big")))
            down.append(size / (perf_counter() - began))
            if got != size * MIB:
                raise BadAnswer(f"{got} bytes came back of {size} MiB")
        result.add(f"upload of {size} MiB, on disk at the answer", "MiB/s", up)
        result.add(f"download of {size} MiB", "MiB/s", down)
        result.add(
            "`dd conv=fsync` inside the machine: what its disk takes", "MiB/s", _disk(stack, machine, size, rounds)
        )
        archive = _archive(bench.amount(10_000, 1_000))
        for _ in range(rounds):
            began = perf_counter()
            files.write_archive(machine, "/many", archive)
            unpack.append(perf_counter() - began)
            began = perf_counter()
            for _piece in files.read_archive(machine, "/many"):
                pass
            pack.append(perf_counter() - began)
        count = bench.amount(10_000, 1_000)
        result.add(f"an archive of {count} small files in", "s", unpack)
        result.add(f"an archive of {count} small files out", "s", pack)
        result.add("one small file in", "ms", _timed(bench, lambda: files.write(machine, "/small", SMALL)))
        result.add("one small file out", "ms", _timed(bench, lambda: files.read(machine, "/small")))
    return result


def _client(stack: Stack) -> Dormice:
    host, port = stack.address
    return Dormice(base_url=f"http://{host}:{port}", api_key=stack.key, transport=SocketTransport())


def _pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield PIECE


def _archive(count: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for number in range(count):
            info = tarfile.TarInfo(f"d{number % 100}/f{number}")
            info.size = len(SMALL)
            archive.addfile(info, io.BytesIO(SMALL))
    return made.getvalue()


def _disk(stack: Stack, machine: str, size: int, rounds: int) -> Iterator[float]:
    with stack.connect() as connection:
        for _ in range(rounds):
            began = perf_counter()
            stack.finish(connection, machine, ["dd", "if=/dev/zero", "of=/dd", "bs=1M", f"count={size}", "conv=fsync"])
            yield size / (perf_counter() - began)


def _timed(bench: Workbench, work: Callable[[], object]) -> Iterator[float]:
    for _ in range(bench.amount(500, 100)):
        began = perf_counter()
        work()
        yield 1000 * (perf_counter() - began)
