"""Secrets are sealed before they reach the disk."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormice.domain.execution import ExecutionEvent, StdinMode
from dormice.store.sealing import Sealer, SecretKind, Unsealable
from tests.store.conftest import open_sqlite
from tests.store.world import World, out, outcome

SEALER = Sealer(bytes(range(32)))


@given(st.text(), st.sampled_from(SecretKind), st.integers(0, 2**60), st.binary())
def test_what_was_sealed_opens_for_the_same_place_only(
    execution: str, kind: SecretKind, offset: int, secret: bytes
) -> None:
    sealed = SEALER.seal(execution, kind, offset, secret)
    assert SEALER.unseal(execution, kind, offset, sealed) == secret
    other = SecretKind.ENV if kind is SecretKind.STDIN else SecretKind.STDIN
    for place in ((execution + "x", kind, offset), (execution, other, offset), (execution, kind, offset + 1)):
        with pytest.raises(Unsealable):
            SEALER.unseal(*place, sealed)


@given(st.binary(max_size=80))
def test_a_damaged_record_is_refused_without_showing_anything(junk: bytes) -> None:
    with pytest.raises(Unsealable) as raised:
        SEALER.unseal("exec-1", SecretKind.ENV, 0, junk)
    assert str(raised.value) == "the sealed env of exec-1 is damaged"


def test_the_same_secret_is_never_sealed_the_same_way() -> None:
    assert len({SEALER.seal("e", SecretKind.ENV, 0, b"secret") for _ in range(100)}) == 100


def test_a_request_hash_depends_on_the_request_and_the_key() -> None:
    assert SEALER.request_hash(b"a") == SEALER.request_hash(b"a")
    others = {SEALER.request_hash(b"a"), SEALER.request_hash(b"b"), Sealer(bytes(32)).request_hash(b"a")}
    assert len(others) == 3


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first = Sealer.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Sealer.load(path).fingerprint() == first.fingerprint()
    assert list(tmp_path.iterdir()) == [path]
    assert first.fingerprint() not in path.read_bytes()


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    Sealer.load(path)
    path.chmod(0o640)
    with pytest.raises(Unsealable, match="0600"):
        Sealer.load(path)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_file_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(os.urandom(size))
    with pytest.raises(Unsealable, match="32 bytes"):
        Sealer.load(path)


def files_that_hold(directory: Path, needle: bytes) -> set[str]:
    return {path.name for path in directory.iterdir() if needle in path.read_bytes()}


async def test_no_file_of_the_data_directory_ever_holds_a_secret(tmp_path: Path) -> None:
    env, given, fed = (os.urandom(16).hex() for _ in range(3))
    secrets = [env.encode(), given.encode(), fed.encode()]
    store = open_sqlite(tmp_path)
    world = await World.made(store)
    one = await world.claimed(
        command=("MARK",), env={"TOKEN": env}, stdin_mode=StdinMode.GIVEN, stdin=given.encode() * 10_000
    )
    two = await world.claimed(env={"TOKEN": env}, stdin_mode=StdinMode.OPEN)
    await store.executions.append_stdin(two.id, 0, fed.encode(), eof=False, now=world.tick())
    # the search finds what is not sealed, and the secrets are there
    assert files_that_hold(tmp_path, b"MARK")
    assert await store.executions.environment(one) == {"TOKEN": env}
    for secret in secrets:
        assert not files_that_hold(tmp_path, secret)
    for execution in (one, two):
        await world.report(execution, started_at=world.tick(), chunks=[out(0, b"OUTPUT")])
        await world.report(execution, outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick()))
    for secret in secrets:
        assert not files_that_hold(tmp_path, secret)
    await store.close()
    assert files_that_hold(tmp_path, b"OUTPUT") == {"dormice.sqlite3"}
    for secret in secrets:
        assert not files_that_hold(tmp_path, secret)


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}


async def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        store = open_sqlite(tmp_path)
        await World.made(store)
        modes = modes_in(tmp_path)
        await store.close()
    finally:
        os.umask(previous)
    assert len(modes) == 5
    assert set(modes.values()) == {0o600}
