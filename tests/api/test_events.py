"""The log as pages and as a stream; text that never splits a character."""

from __future__ import annotations

import base64
from itertools import pairwise

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormice.api.machines.events import EventRenderer
from dormice.api.machines.text import LOOK_BACK, StreamDecoder
from dormice.domain.execution import ExecutionState, Stream
from tests.api.fakes import FAILED, MACHINE_ID, FakeExecutions, World, chunk, finished, lifecycle, new_execution
from tests.api.test_errors import assert_problem
from tests.api.test_machines import frames

EVENTS = f"/v1/machines/{MACHINE_ID}/executions/exec-1/events"
STREAMED = {"Accept": "text/event-stream"}
OUT, ERR = Stream.STDOUT, Stream.STDERR

awkward_bytes = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.lists(st.sampled_from([b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\x98\x80", b"\xc0", b"\xed\xa0", b"a"])).map(
        b"".join
    ),
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@given(data=awkward_bytes, cuts=st.lists(st.integers(0, 100), max_size=6))
async def test_chunks_read_from_any_sequence_are_the_text_of_the_whole(data: bytes, cuts: list[int]) -> None:
    executions = FakeExecutions()
    execution = executions.add(*finished(pieces=[(OUT, piece) for piece in split(data, cuts)]))
    entries = executions.logs[execution.id]
    whole = await EventRenderer(executions, base64=False).render(execution, entries)
    assert "".join(event.chunk or "" for event in whole) == data.decode(errors="replace")
    for start in range(len(entries)):
        resumed = await EventRenderer(executions, base64=False).render(execution, entries[start:])
        assert resumed == whole[start:]


@given(before=st.binary(max_size=12), after=st.binary(max_size=12))
def test_three_bytes_back_tell_what_is_unfinished(before: bytes, after: bytes) -> None:
    far, near = StreamDecoder(0, b""), StreamDecoder(len(before), before[-LOOK_BACK:])
    far.decode(before)
    assert far.decode(after, last=True) == near.decode(after, last=True)


async def test_a_split_character_belongs_to_the_chunk_in_which_it_ends(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished(pieces=[(OUT, b"1 \xe2\x82"), (ERR, b"x"), (OUT, b"\xac!"), (OUT, b"\xff")]))
    items = (await client.get(EVENTS)).json()["items"]
    assert [(item["sequence"], item.get("chunk")) for item in items[2:6]] == [
        (3, "1 "),
        (4, "x"),
        (5, "€!"),
        (6, "\ufffd"),
    ]
    resumed = (await client.get(EVENTS, params={"cursor": "4"})).json()["items"]
    assert resumed == items[4:]


async def test_an_event_has_what_its_type_has(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished(pieces=[(OUT, b"hi\n")], **FAILED))
    body = (await client.get(EVENTS)).json()
    assert "next_cursor" not in body
    assert body["items"][1:] == [
        {"sequence": 2, "type": "lifecycle", "at": "2026-06-01T10:00:00.000002Z", "status": "running"},
        {"sequence": 3, "type": "stdout", "at": "2026-06-01T10:00:00.000003Z", "chunk": "hi\n"},
        {"sequence": 4, "type": "lifecycle", "at": "2026-06-01T10:00:00.000004Z", "status": "failed", "exit_code": 1},
    ]


async def test_base64_carries_the_exact_bytes_and_where_they_stand(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished(pieces=[(ERR, b"\xff\0"), (ERR, b"\xe2")]))
    items = (await client.get(EVENTS, params={"encoding": "base64"})).json()["items"][2:4]
    assert [base64.b64decode(item["chunk_base64"]) for item in items] == [b"\xff\0", b"\xe2"]
    assert [item["offset"] for item in items] == [0, 2]
    assert all("chunk" not in item for item in items)
    assert_problem(await client.get(EVENTS, params={"encoding": "latin-1"}), 422)


async def test_pages_of_a_finished_execution_end(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished(pieces=[(OUT, b"x")] * 5))
    seen, cursor, pages = [], "0", 0
    while True:
        page = (await client.get(EVENTS, params={"limit": "4", "cursor": cursor})).json()
        seen += [item["sequence"] for item in page["items"]]
        pages += 1
        if "next_cursor" not in page:
            break
        cursor = page["next_cursor"]
    assert seen == list(range(1, 9))
    assert pages == 2


async def test_a_long_page_in_pieces_is_a_page_like_any(client: httpx.AsyncClient, world: World) -> None:
    pieces = [(OUT, ("€" * 40_000).encode()[:100_001]), (ERR, b'"'), (OUT, b"\xff" * 200_000), (OUT, b"!")]
    execution = world.executions.add(*finished(pieces=pieces))
    page = (await client.get(EVENTS)).json()
    rendered = await EventRenderer(world.executions, base64=False).render(execution, world.executions.logs["exec-1"])
    assert page == {"items": msgspec.to_builtins(rendered)}
    cut = (await client.get(EVENTS, params={"limit": "5"})).json()
    assert cut == {"items": page["items"][:5], "next_cursor": "5"}


async def test_a_page_of_a_live_execution_can_be_gone_on_from(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(new_execution(state=ExecutionState.RUNNING), [lifecycle(1, ExecutionState.RUNNING)])
    page = (await client.get(EVENTS)).json()
    assert page["next_cursor"] == "1"
    assert (await client.get(EVENTS, params={"cursor": "1"})).json() == {"items": []}


async def test_the_stream_follows_until_the_end(client: httpx.AsyncClient, world: World) -> None:
    running = world.executions.add(new_execution(state=ExecutionState.RUNNING), [lifecycle(1, ExecutionState.RUNNING)])
    world.executions.add(*finished(2))
    execution = new_execution(state=ExecutionState.SUCCEEDED, exit_code=0)
    await world.executions.grow(running, [chunk(2, b"a\xe2", 0), chunk(3, b"\x82\xac", 2)])
    await world.executions.grow(execution, [lifecycle(4, ExecutionState.SUCCEEDED, exit_code=0)])
    response = await client.get(EVENTS, headers=STREAMED)
    assert response.headers["content-type"] == "text/event-stream"
    events = frames(response.text)
    assert [(event["id"], event["event"]) for event in events] == [
        ("1", "lifecycle"), ("2", "stdout"), ("3", "stdout"), ("4", "lifecycle"),
    ]  # fmt: skip
    assert '"chunk":"€"' in events[2]["data"]


async def test_a_stream_resumes_after_the_last_event_id_rather_than_the_cursor(
    client: httpx.AsyncClient, world: World
) -> None:
    world.executions.add(*finished(pieces=[(OUT, b"x")]))
    for headers, params, first in (
        ({"Last-Event-ID": "3"}, {"cursor": "1"}, "4"),
        ({}, {"cursor": "2"}, "3"),
        ({"Last-Event-ID": ""}, {"cursor": "2"}, "3"),
        ({}, {}, "1"),
    ):
        response = await client.get(EVENTS, headers=STREAMED | headers, params=params)
        assert frames(response.text)[0]["id"] == first
    assert (await client.get(EVENTS, headers=STREAMED | {"Last-Event-ID": "4"})).text == ""
    assert_problem(await client.get(EVENTS, headers=STREAMED | {"Last-Event-ID": "x"}), 422)


async def test_the_stream_of_an_unknown_execution_is_a_problem(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(EVENTS, headers=STREAMED), 404)


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "b5", "9" * 30])
async def test_a_bad_cursor_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    problem = assert_problem(await client.get(EVENTS, params={"cursor": cursor}), 422)
    assert problem["errors"][0]["location"] == "query.cursor"
