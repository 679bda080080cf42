"""A server whose store cannot be trusted or used does not start: one clear line, exit code 2, and nothing is changed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import apsw
import pytest

from dormice.locks import locked
from dormice.store.sealing import Sealer
from dormice.store.sqlite import SqliteStore
from tests.faults.quota import Quota
from tests.faults.small_disk import needs_root, small_disk
from tests.faults.starts import SECONDS, refused, start
from tests.store.world import World, out
from tests.wait import wait_until

PAGE = 4096
ROWS = 60


@pytest.fixture(name="place")
def _place(directory: Callable[[], Path]) -> Path:
    """A directory that the server's user can reach."""
    place = directory()
    place.chmod(0o755)
    return place


@pytest.fixture(name="file")
async def _file(place: Path) -> Path:
    """The file of a store that has been used, of some 60 pages."""
    directory = place / "data" / "server"
    directory.mkdir(parents=True)
    file = directory / "dormice.sqlite3"
    store = SqliteStore.open(file, Sealer.load(directory / "sealing-key"))
    world = await World.made(store)
    for _ in range(ROWS):
        await world.report(await world.running(command=("x" * 2_000,)), chunks=[out(0, b"y" * 100)])
    await store.close()
    return file


def _overwrite(file: Path, start: int, size: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(start)
        opened.write(b"\xa5" * size)


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // PAGE // 2 * PAGE)


def _lose_header(file: Path) -> None:
    _overwrite(file, 0, 100)


def _lose_pages(file: Path) -> None:
    _overwrite(file, PAGE, file.stat().st_size - PAGE)


def _lose_one_page(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'executions'").fetchone()[0]
    _overwrite(file, (root - 1) * PAGE, PAGE)


def _lose_an_index(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_schema WHERE name = 'executions_of'")
        db.commit()


def _get_a_strange_log(file: Path) -> None:
    file.with_name(f"{file.name}-wal").write_bytes(b"Dear diary, " * 1_000)


@pytest.mark.parametrize(
    "damage", [_truncate, _lose_header, _lose_pages, _lose_one_page, _lose_an_index, _get_a_strange_log]
)
def test_a_damaged_file_is_refused(place: Path, file: Path, damage: Callable[[Path], None]) -> None:
    damage(file)
    before = file.read_bytes()
    line = refused(place)
    assert line.startswith("dormice: ")
    assert str(file.parent) in line
    assert file.read_bytes() == before


def test_a_file_of_another_version_is_refused(place: Path, file: Path) -> None:
    for version in (99, -1):
        with closing(sqlite3.connect(file)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        assert f"schema {version}" in refused(place)


def test_a_store_without_its_sealing_key_is_refused_and_no_other_key_is_made(place: Path, file: Path) -> None:
    key = file.with_name("sealing-key")
    secret = key.read_bytes()
    key.unlink()
    assert "sealing-key is missing" in refused(place)
    assert not key.exists()
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    assert "not the one" in refused(place)
    key.write_bytes(secret[:5])
    assert "32 bytes" in refused(place)
    key.write_bytes(secret)
    key.chmod(0o644)
    assert "0600" in refused(place)
    key.chmod(0o600)
    with start(place) as process:
        assert process.stderr is not None
        assert any(b"listening on" in line for line in process.stderr)
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_a_file_that_stays_locked_is_refused(place: Path, file: Path) -> None:
    with closing(apsw.Connection(str(file))) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        assert "locked" in refused(place)


def test_a_second_server_on_the_same_data_is_refused(place: Path) -> None:
    with start(place) as first:
        try:
            file = place / "data" / "server" / "dormice.sqlite3"
            wait_until(file.exists, SECONDS, "the first has its store")
            assert "is in use by another `dormice server`" in refused(place, DORMICE_RUN_DIR=str(place / "run2"))
        finally:
            first.terminate()
        assert first.stderr is not None
        first.stderr.read()


@pytest.mark.parametrize(("role", "goes_on"), [("server", b"listening on"), ("node", b"WITHOUT ANY ISOLATION")])
def test_who_waits_for_an_earlier_one_to_end_says_so_at_once(place: Path, role: str, goes_on: bytes) -> None:
    home = place / "data" / role
    home.mkdir(parents=True)
    with ExitStack() as earlier:
        earlier.enter_context(locked(home / "lock", "test"))
        with start(place, role) as process:
            try:
                assert process.stderr is not None
                said = json.loads(next(process.stderr))
                assert said["level"] == "warning"
                assert said["message"].startswith(f"{home} is in use by another `dormice {role}`: waiting up to 8 s")
                earlier.close()
                assert any(goes_on in line for line in process.stderr)
            finally:
                process.kill()


@needs_root
@pytest.mark.parametrize("role", ["server", "up"])
def test_a_full_disk_is_no_place_to_begin(place: Path, role: str) -> None:
    with small_disk("tmpfs", place / "data", 1) as disk:
        disk.fill()
        assert "No space left" in refused(place, role)


@needs_root
def test_a_store_on_a_full_disk_is_told_so(place: Path, file: Path) -> None:
    kept = {entry.name: entry.read_bytes() for entry in file.parent.iterdir()}
    with small_disk("tmpfs", place / "data", 4) as disk:
        file.parent.mkdir()
        for name, data in kept.items():
            file.with_name(name).write_bytes(data)
            file.with_name(name).chmod(0o600)
        (place / "data" / "api-key").write_text("k" * 40 + "\n")
        disk.fill()
        assert "full" in refused(place)


def test_a_store_whose_disk_has_a_quota_that_is_used_up_is_told_so(place: Path, file: Path) -> None:
    quota = Quota(file.parent, place)
    quota.fill()
    before = file.read_bytes()
    said = refused(place, **quota.environment)
    assert "the disk is full (Disk quota exceeded)" in said
    assert file.read_bytes() == before
    quota.free()
    with start(place, **quota.environment) as process:
        assert process.stderr is not None
        assert any(b"listening on" in line for line in process.stderr)
        process.terminate()
        assert process.wait(SECONDS) == 0


@needs_root
@pytest.mark.parametrize("role", ["server", "up"])
def test_a_file_system_that_cannot_be_written_is_told(place: Path, role: str) -> None:
    with small_disk("ext4", place / "data", 4) as disk:
        disk.make_read_only()
        assert "Read-only file system" in refused(place, role)
