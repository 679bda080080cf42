"""The store is locked, deleted or damaged under a running server: 503 and /readyz, never a wrong answer."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from dormice.store.interface import StoreUnavailable
from dormice.store.sealing import Sealer
from dormice.store.sqlite import SqliteStore
from tests.conftest import StartLive
from tests.faults.small_disk import needs_root, small_disk
from tests.live import Api, Live, new_key, path_of
from tests.store.world import World
from tests.wait import others_run, wait_until

PAGE = 4096


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    """A Dormice whose store is not spared."""
    with start_live("process") as live:
        yield live


def _file(live: Live) -> Path:
    return live.data / "server" / "dormice.sqlite3"


def _trouble(api: Api) -> str | None:
    """What /readyz says of the store, if it is not ready."""
    answer = api.get("/readyz")
    part = answer.json()["parts"]["store"]
    assert part["ready"] or answer.status_code == 503
    return None if part["ready"] else str(part["detail"])


def _create(api: Api, machine: str) -> httpx.Response:
    return api.post(f"/v1/machines/{machine}/executions", json={"command": ["true"]}, headers=new_key())


def test_a_locked_store_is_503_and_holds_nobody_else_up_and_resumes(live: Live) -> None:
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        writer = api.shell(machine, "for i in {1..40}; do echo $i; read -t 0.05 <> <(:); done", wait_ms=0)
        api.wait_for_output(writer, b"1\n")
        with closing(apsw.Connection(str(_file(live)))) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            refused = _create(api, machine)
            assert refused.status_code == 503, refused.text
            assert "locked" in refused.json()["message"]
            assert "locked" in wait_until(lambda: _trouble(api), 10, "the store says that it is locked")
            assert api.get(path_of(writer)).json()["status"] == "running"
            intruder.execute("ROLLBACK")
        wait_until(lambda: _trouble(api) is None, 10, "ready again")
        assert _create(api, machine).status_code == 200
        assert api.output(api.finished(writer)).decode().split() == [str(n) for n in range(1, 41)]


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_nothing_is_acknowledged_into_a_file_that_was_deleted(live: Live, suffix: str) -> None:
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        before = api.execute(machine, "echo", "kept")
        file = _file(live).with_name(f"{_file(live).name}{suffix}")
        aside = file.with_name("aside")
        file.rename(aside)
        refused = _create(api, machine)
        assert refused.status_code == 503
        assert "deleted or replaced" in refused.json()["message"]
        assert "deleted or replaced" in wait_until(lambda: _trouble(api), 5, "the store says that it is gone")
        assert api.output(before) == b"kept\n"
        file.touch()
        assert _create(api, machine).status_code == 503
        aside.rename(file)
        assert _create(api, machine).status_code == 200
        wait_until(lambda: _trouble(api) is None, 5, "ready again")


def test_damage_that_is_met_ends_every_answer_until_it_is_mended(live: Live) -> None:
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        victim = api.execute(machine, "head", "-c", "100000", "/dev/zero")
        other = api.execute(machine, "echo", "fine")
        live.stop()
        file, backup = _file(live), live.directory / "backup"
        shutil.copy2(file, backup)
        for page in _log_pages(file):
            with file.open("r+b") as opened:
                opened.seek((page - 1) * PAGE)
                opened.write(b"\xa5" * PAGE)
        live.start()  # the log is not read through at the start
        assert api.get(path_of(victim)).status_code == 200
        answer = api.get(f"{path_of(victim)}/output")
        assert answer.status_code == 503, answer.text
        assert "corrupt" in answer.json()["message"]
        assert "corrupt" in wait_until(lambda: _trouble(api), 5, "the store says that it is damaged")
        for refused in (_create(api, machine), api.get(f"/v1/machines/{machine}/executions"), api.get(path_of(other))):
            assert refused.status_code == 503, refused.text
        live.stop()
        shutil.copyfile(backup, file)
        live.start()
        assert api.output(victim) == bytes(100_000)


def _log_pages(file: Path) -> list[int]:
    """The pages of the log below its root."""
    with closing(apsw.Connection(str(file))) as db:
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'log'").get
        pages: list[Any] = [page for (page,) in db.execute("SELECT pageno FROM dbstat WHERE name = 'log'")]
    return [page for page in pages if page != root]


async def test_whoever_waits_for_a_locked_file_holds_the_event_loop_up_no_longer(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "dormice.sqlite3", Sealer(os.urandom(32)))
    world = await World.made(store)
    await world.create()  # alone and quick, as the next one would be
    with closing(apsw.Connection(str(tmp_path / "dormice.sqlite3"))) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(world.create())
        await others_run(0.01)
        assert not waiting.done(), "the loop went on before the file was given up"
        intruder.execute("ROLLBACK")
    created = await waiting
    assert created in await store.executions.open()
    await store.close()


@needs_root
async def test_a_file_system_that_turns_read_only_takes_nothing_more(directory: Callable[[], Path]) -> None:
    with small_disk("ext4", directory() / "disk", 4) as disk:
        store = SqliteStore.open(disk.mountpoint / "dormice.sqlite3", Sealer(os.urandom(32)))
        world = await World.made(store)
        created = await world.create()
        disk.make_read_only()
        with pytest.raises(StoreUnavailable):
            await world.create()
        with pytest.raises(StoreUnavailable):
            await store.check()
        assert await store.executions.open() == [created]
        await store.close()
