"""Files of real machines by the command line and by the clients."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from dormice import AsyncDormice, ConflictError, Dormice, NotFoundError
from tests.live import Api, Live

pytestmark = pytest.mark.machines
PIECE = bytes(range(256)) * 4096
Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(name="dormice")
def _dormice(container_live: Live, tmp_path: Path) -> Run:
    environment = {**os.environ, "DORMICE_BASE_URL": container_live.base_url, "DORMICE_API_KEY": container_live.api_key}

    def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "dormice.cli", *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, input=stdin, capture_output=True, check=False)

    return run


def _done(run: subprocess.CompletedProcess[bytes]) -> bytes:
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_files_and_directories_are_copied_both_ways(dormice: Run, container_machine: str, tmp_path: Path) -> None:
    machine = container_machine
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/run").write_bytes(PIECE)
    (tmp_path / "tree/sub/run").chmod(0o750)
    (tmp_path / "tree/link").symlink_to("/nowhere")
    _done(dormice("files", "mkdir", "--parents", f"{machine}:/srv/cp"))
    _done(dormice("cp", "tree", f"{machine}:/srv/cp"))
    _done(dormice("cp", f"{machine}:/srv/cp/tree", "back"))
    assert (tmp_path / "back/sub/run").read_bytes() == PIECE
    assert (tmp_path / "back/sub/run").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "back/link").readlink() == Path("/nowhere")
    _done(dormice("cp", "tree/sub/run", f"{machine}:/srv/cp/"))
    _done(dormice("cp", f"{machine}:/srv/cp/run", "."))
    assert (tmp_path / "run").read_bytes() == PIECE
    _done(dormice("cp", "-", f"{machine}:/srv/cp/piped", stdin=b"piped"))
    assert _done(dormice("cp", f"{machine}:/srv/cp/piped", "-")) == b"piped"
    listed = _done(dormice("files", "ls", f"{machine}:/srv/cp")).decode().split("\n")
    assert [line.split()[-1] for line in listed[1:-1]] == ["piped", "run", "tree/"]
    _done(dormice("files", "mv", f"{machine}:/srv/cp/piped", "/srv/cp/moved"))
    assert b'"size": 5' in _done(dormice("files", "stat", f"{machine}:/srv/cp/moved", "--json"))
    _done(dormice("files", "rm", "--recursive", f"{machine}:/srv/cp"))


def test_what_cannot_be_copied_is_told(dormice: Run, container_machine: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for words, code, text in (
        (("cp", f"{container_machine}:/nope", "x"), 1, b"no such file"),
        (("cp", "nope", f"{container_machine}:/srv"), 1, b"No such file"),
        (("cp", "file", f"{container_machine}:/proc/x"), 1, b"/proc/x"),
        (("cp", "a", "b"), 2, b"MACHINE:PATH"),
        (("files", "ls", "path"), 2, b"MACHINE:PATH"),
    ):
        run = dormice(*words)
        assert (run.returncode, text in run.stderr) == (code, True), run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_client_reads_and_writes_files(container_live: Live, container_machine: str) -> None:
    machine = container_machine
    with Dormice(base_url=container_live.base_url, api_key=container_live.api_key) as client:
        files = client.machines.files
        assert files.write(machine, "/srv/sync/text", "text", parents=True, mode=0o600).mode == "0600"
        assert (files.read(machine, "/srv/sync/text"), files.read(machine, "/srv/sync/text", start=1, end=3)) == (
            b"text",
            b"ex",
        )
        for start, content in ((1, b"ext"), (4, b""), (1 << 53, b"")):
            part = files.read_part(machine, "/srv/sync/text", start=start)
            assert (part.content, part.size) == (content, 4)
        for start, end in ((2, 2), (3, 2), (-1, None)):
            with pytest.raises(ValueError, match="start"):
                files.read(machine, "/srv/sync/text", start=start, end=end)
        assert files.write(machine, "/srv/sync/large", iter([PIECE] * 8), size=8 * len(PIECE)).size == 8 * len(PIECE)
        assert b"".join(files.stream(machine, "/srv/sync/large")) == PIECE * 8
        assert files.write_archive(machine, "/srv/again", files.read_archive(machine, "/srv/sync")).type == "directory"
        assert [entry.name for entry in files.list(machine, "/srv/again", limit=1)] == ["large", "text"]
        odd = os.fsdecode(b"/srv/again/\xff")
        files.rename(machine, "/srv/again/text", odd)
        assert [entry.exact_name for entry in files.list(machine, "/srv/again")] == ["large", os.fsdecode(b"\xff")]
        assert files.mkdir(machine, "/srv/again/made").type == files.stat(machine, "/srv/again/made").type
        with pytest.raises(ConflictError, match="no room"):
            files.write(machine, "/srv/again/much", _much())
        for path in ("/srv/again", "/srv/sync"):
            files.delete(machine, path, recursive=True)
        with pytest.raises(NotFoundError):
            files.read(machine, odd)


async def test_the_asynchronous_client_does_too(container_live: Live, container_api: Api) -> None:
    machine = container_api.create_machine()
    async with AsyncDormice(base_url=container_live.base_url, api_key=container_live.api_key) as client:
        files = client.machines.files
        assert (await files.write(machine, "large", _pieces(8))).size == 8 * len(PIECE)
        assert b"".join([piece async for piece in files.stream(machine, "large", start=1)]) == (PIECE * 8)[1:]
        await files.write_archive(machine, "copy", files.read_archive(machine, "/etc/apt"))
        original = [entry.name async for entry in files.list(machine, "/etc/apt")]
        assert [entry.name async for entry in files.list(machine, "copy", limit=2)] == original
        with pytest.raises(ConflictError):
            await files.write(machine, "much", _pieces(1200))


def _much() -> Iterator[bytes]:
    for _ in range(1200):
        yield PIECE


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield PIECE
