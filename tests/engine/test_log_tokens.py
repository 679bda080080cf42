"""Tokens that read one log: for a time, for one stream, and only as they were made."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import pytest

from dormice.domain.errors import Forbidden, Unauthenticated
from dormice.domain.execution import Execution
from dormice.domain.limits import Limits
from dormice.engine.log_tokens import PREFIX, LogTokens
from dormice.engine.orders import Caller
from dormice.engine.tokens import Tokens
from dormice.store.interface import Key, Store
from dormice.store.sealing import Sealer
from tests.engine.scripted_node import MovedClock, Server

KEY = "key-7"


@pytest.fixture(name="made")
async def _made(server: Server, clock: MovedClock, tmp_path: Path) -> tuple[LogTokens, Caller, Execution, Store]:
    store = server.engine._store
    key = Key(
        id=KEY,
        organization_id=server.caller.organization_id,
        organization="default",
        name="k",
        admin=False,
        prefix="dm",
        created_at=clock.now(),
    )
    await store.keys.create(key, b"h" * 32)
    caller = Caller(server.caller.organization_id, KEY, admin=False)
    node = await server.node()
    machine, _ = await server.machine(node)
    execution = await server.engine.executions.get(caller, machine.id, await server.execute(machine))
    return tokens(tmp_path, clock, store), caller, execution, store


def tokens(directory: Path, clock: MovedClock, store: Store) -> LogTokens:
    """As a server makes it at its start."""
    sign = Sealer.load(directory / "sealing-key").request_hash
    return LogTokens(tokens=Tokens(sign=sign, clock=clock), keys=store.keys, clock=clock, limits=Limits())


Made = tuple[LogTokens, Caller, Execution, Store]


async def test_a_token_is_good_for_its_stream_also_after_a_restart(
    made: Made, clock: MovedClock, tmp_path: Path
) -> None:
    makes, caller, execution, store = made
    token, expires_at = makes.mint(caller, execution)
    assert 890 < (expires_at - clock.now()) / 1_000_000 <= 900
    assert len(token) <= Limits().key_max_chars
    grant = await tokens(tmp_path, clock, store).grant(token, execution.id)
    assert (grant.caller, grant.machine_id, grant.execution_id) == (caller, execution.machine_id, execution.id)


async def test_a_token_is_good_for_no_other_stream(made: Made) -> None:
    makes, caller, execution, _ = made
    token, _ = makes.mint(caller, execution)
    with pytest.raises(Forbidden):
        await makes.grant(token, "exec-01234567-89ab-7cde-8f01-23456789abcd")


async def test_a_token_ends_with_its_time(made: Made, clock: MovedClock) -> None:
    makes, caller, execution, _ = made
    token, _ = makes.mint(caller, execution)
    clock.forward(901)
    with pytest.raises(Unauthenticated, match="expired"):
        await makes.grant(token, execution.id)


async def test_a_token_ends_with_the_key_that_made_it(made: Made, clock: MovedClock) -> None:
    makes, caller, execution, store = made
    token, _ = makes.mint(caller, execution)
    await store.keys.revoke(None, KEY, clock.now())
    with pytest.raises(Unauthenticated):
        await makes.grant(token, execution.id)


async def test_what_was_not_signed_here_is_no_token(made: Made) -> None:
    makes, caller, execution, store = made
    token, _ = makes.mint(caller, execution)
    body = token.removeprefix(PREFIX)
    said, _, signed = body.partition(".")
    plain = bytearray(urlsafe_b64decode(said + "=" * (-len(said) % 4)))
    plain[-1] ^= 1
    altered = PREFIX + urlsafe_b64encode(bytes(plain)).decode().rstrip("=") + "." + signed
    strange = Tokens(sign=Sealer(b"s" * 32).request_hash, clock=MovedClock())
    stranger = LogTokens(tokens=strange, keys=store.keys, clock=MovedClock(), limits=Limits())
    forged, _ = stranger.mint(caller, execution)
    terminal = f"{PREFIX}{said}." + makes._tokens.issue("terminal", said, seconds=900)
    for wrong in (
        altered,
        terminal,
        forged,
        "",
        PREFIX,
        body,
        token[:-4],
        f"{token}AAAA",
        f"{PREFIX}é",
        PREFIX + "A" * 600,
        "x" * 43,
    ):
        with pytest.raises(Unauthenticated):
            await makes.grant(wrong, execution.id)
