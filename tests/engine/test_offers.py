"""What workflows say of themselves: which specs are refused, and which payloads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable

import msgspec
import pytest

from dormice.domain.errors import Invalid
from dormice.domain.limits import Limits
from dormice.engine.runs.offers import Offer, Offers, RetryPolicy
from dormice.engine.runs.schema_checks import SchemaChecks

SCHEMA = b'{"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}, "required": ["n"]}'


@pytest.fixture
async def offers() -> AsyncGenerator[Offers]:
    checks = SchemaChecks(Limits().schema_check_ms)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(checks.serve())
        yield Offers(checks)
        serving.cancel()


def offer(schema: bytes) -> Offer:
    return Offer(input_schema=msgspec.Raw(schema))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (b'{"retry_policy": {"max_retries": -1}}', "max_retries from 0"),
        (b'{"retry_policy": {"initial_ms": 10, "max_ms": 5}}', "initial_ms <= max_ms"),
        (b'{"retry_policy": {"multiplier": 0.5}}', "multiplier must be from 1"),
        (b'{"retry_policy": {"max_retries": "many"}}', "retry_policy"),
        (b'{"input_schema": {"type": "nonsense"}}', "input_schema is no JSON Schema"),
        (b'{"output_schema": {"$ref": "http://127.0.0.1:9/x"}}', "output_schema is no JSON Schema"),
        (b'{"input_schema": {"pattern": "(a)\\\\1"}}', "input_schema is no JSON Schema"),
        (b'{"input_schema": "text"}', "input_schema is no JSON Schema"),
        (b'{"input_schema": {"minimum": 1e400}}', "input_schema is no JSON Schema"),
        (b'{"input_schema": {"const": "\\ud800"}}', "schema cannot be read"),
        (b'{"input_schema": ' + b'{"not":' * 400 + b"true" + b"}" * 400 + b"}", "input_schema is no JSON Schema"),
        (b'{"output_schema": ' + b'{"not":' * 5_000 + b"true" + b"}" * 5_000 + b"}", "schema cannot be read"),
        (b'{"retry_policy": {"max_retries": "\\ud800"}}', "retry_policy"),
        (b'{"input_schema": {"description": "' + b"x" * 262_144 + b'"}}', "at most 262144 bytes"),
    ],
)
async def test_a_spec_that_cannot_be_gone_by_is_refused(offers: Offers, spec: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        await offers.check("o", spec)
    assert refused.value.status == 400


async def test_a_payload_that_fits_not_is_refused_without_its_values(offers: Offers) -> None:
    await offers.check_payload("o", offer(SCHEMA), b'{"n": 3}')
    with pytest.raises(Invalid) as refused:
        await offers.check_payload("o", offer(SCHEMA), b'{"n": 987654}')
    assert "payload['n']" in refused.value.message
    assert "987654" not in refused.value.message


@pytest.mark.parametrize("document", [b"1e400", b'{"n": "\\ud800"}', b"[" * 5_000 + b"]" * 5_000])
async def test_a_payload_that_cannot_be_read_does_not_fit(offers: Offers, document: bytes) -> None:
    with pytest.raises(Invalid, match="payload cannot be compared with the workflow's input_schema"):
        await offers.check_payload("o", offer(b'{"items": {"$ref": "#"}}'), document)


async def test_expressions_take_linear_time(offers: Offers) -> None:
    evil = offer(b'{"type": "string", "pattern": "^(a+)+$"}')
    with pytest.raises(Invalid):
        await offers.check_payload("o", evil, b'"' + b"a" * 50_000 + b'b"')


def test_pauses_grow_to_their_longest() -> None:
    policy = RetryPolicy(initial_ms=100, multiplier=3, max_ms=1_000)
    for failures, longest in enumerate((100, 300, 900, 1_000, 1_000)):
        assert longest * 500 <= policy.pause(failures) <= longest * 1_000


def fanning(levels: int) -> bytes:
    """A schema of which every level is two of the next one for the same value."""
    defs = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return msgspec.json.encode({"$defs": {**defs, f"d{levels}": {"type": "integer"}}, "$ref": "#/$defs/d0"})


TREES = {
    "Fork": {
        "type": "object",
        "properties": {"kind": {"const": "fork"}, "next": {"$ref": "#/$defs/Tree"}},
        "required": ["kind"],
    },
    "Path": {
        "type": "object",
        "properties": {"kind": {"const": "path"}, "next": {"$ref": "#/$defs/Tree"}},
        "required": ["kind"],
    },
    "Tree": {"anyOf": [{"$ref": "#/$defs/Fork"}, {"$ref": "#/$defs/Path"}, {"type": "null"}]},
}


def tree(levels: int, end: object) -> bytes:
    for _ in range(levels):
        end = {"next": end, "kind": "path"}
    return msgspec.json.encode(end)


async def longest_pause(work: Awaitable[object]) -> float:
    """Seconds for which the loop stood still at most, while something was done."""
    loop, longest = asyncio.get_running_loop(), 0.0
    doing = asyncio.ensure_future(work)
    last = time.perf_counter()

    def turn() -> None:
        nonlocal last, longest
        now = time.perf_counter()
        last, longest = now, max(longest, now - last)
        if not doing.done():
            loop.call_later(0.001, turn)

    turn()
    await asyncio.wait((doing,))
    turn()
    doing.result()
    return longest


async def test_a_schema_that_fans_out_holds_up_nobody(offers: Offers) -> None:
    async def refused() -> None:
        with pytest.raises(Invalid, match=r"cannot be compared .* in 100 ms of processor time .*schema_check_ms"):
            await offers.check_payload("o", offer(fanning(40)), b"1")

    assert await longest_pause(refused()) < 0.5
    await offers.check_payload("o", offer(fanning(4)), b"1")


async def test_why_a_payload_does_not_fit_is_not_sought_for_ever(offers: Offers) -> None:
    trees = offer(msgspec.json.encode({"$defs": TREES, "$ref": "#/$defs/Tree"}))
    await offers.check_payload("o", trees, tree(16, None))

    async def refused() -> None:
        with pytest.raises(
            Invalid, match="payload does not fit the workflow's input_schema; to say where takes too long"
        ):
            await offers.check_payload("o", trees, tree(16, "bad"))

    assert await longest_pause(refused()) < 0.5


async def test_so_many_misfits_hold_up_nobody(offers: Offers) -> None:
    wide = offer(msgspec.json.encode({"items": {"anyOf": [{"type": "integer", "minimum": one} for one in range(300)]}}))

    async def refused() -> None:
        with pytest.raises(Invalid, match="does not fit"):
            await offers.check_payload("o", wide, msgspec.json.encode(["x"] * 3_000))

    assert await longest_pause(refused()) < 0.5


async def test_a_schema_that_is_long_to_read_is_refused(offers: Offers) -> None:
    spec = {"input_schema": {"anyOf": [{"pattern": f"(x.*y.*){{200}}{one}$"} for one in range(2_000)]}}

    async def refused() -> None:
        with pytest.raises(Invalid, match="to read it takes more than 100 ms"):
            await offers.check("o", msgspec.json.encode(spec))

    assert await longest_pause(refused()) < 0.5


async def test_a_killed_process_is_replaced(offers: Offers) -> None:
    for _ in range(3):
        with pytest.raises(Invalid, match="cannot be compared"):
            await offers.check_payload("o", offer(fanning(40)), b"1")
        with pytest.raises(Invalid, match="3 does not fit"):
            await offers.check_payload("o", offer(b'{"type": "string"}'), b"3", "3")


async def test_many_documents_at_once_leave_room_for_others(offers: Offers) -> None:
    wide = offer(
        msgspec.json.encode({"items": {"anyOf": [{"multipleOf": 0.001 + one} for one in range(1, 21)] + [{}]}})
    )
    one = offers.check_payload
    work = asyncio.gather(*(one("o", wide, b"[" + b"1.5," * 30 + b"1]") for _ in range(2_000)))
    assert await longest_pause(work) < 0.5
