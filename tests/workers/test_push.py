"""Pushes over real connections: what is certain after each kind of answer, and what is left open."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable
from ipaddress import ip_address
from typing import Self

import pytest

from dormice.outbound import connections
from dormice.outbound.connections import CONNECTIONS_PER_ORIGIN
from dormice.outbound.http_connection import HttpConnection
from dormice.outbound.targets import Address
from dormice.workers.push import CancelAnswer, PushAnswer, PushClient, PushPolicy
from tests.wait import others_run, wait_until_async
from tests.workers.fake_worker import (
    ACCEPTED,
    Answering,
    FakeWorker,
    answer,
    keeps_silent,
    repeats,
    reset,
    resets,
    sends,
)

WORKER = "7d1c2c1e-8d57-4c7c-9f43-0d5a2f5a9f10"
BODY = b'{"payload":{"a":[1,2,3]}}'
MISMATCH = answer(400, b'{"error":"Worker ID mismatch"}')


@pytest.fixture(name="client")
async def _client() -> AsyncIterator[PushClient]:
    client = PushClient(PushPolicy(loopback=True))
    yield client
    await client.close()


@pytest.fixture(name="patient")
async def _patient() -> AsyncIterator[PushClient]:
    """A client that would outlast the test if its time limit were all that it has."""
    client = PushClient(PushPolicy(loopback=True, timeout_seconds=3600, cancel_timeout_seconds=3600, answer_bytes=2000))
    yield client
    await client.close()


@pytest.fixture(name="impatient")
async def _impatient() -> AsyncIterator[PushClient]:
    policy = PushPolicy(loopback=True, timeout_seconds=0.2, cancel_timeout_seconds=0.2, answer_bytes=2000)
    client = PushClient(policy)
    yield client
    await client.close()


def push(client: PushClient, worker: FakeWorker, body: bytes = BODY) -> Awaitable[PushAnswer]:
    return client.execute(worker.url, WORKER, body)


async def seen(count: int, worker: FakeWorker) -> None:
    async def enough() -> bool:
        return len(worker.received) >= count

    await wait_until_async(enough, 5, f"{count} requests at the worker")


async def all_closed(worker: FakeWorker) -> None:
    async def closed() -> bool:
        return worker.open == 0

    await wait_until_async(closed, 5, "all connections closed")


# What is sent, and what is certain after an answer


async def test_a_run_is_posted_with_the_worker_id(client: PushClient, worker: FakeWorker) -> None:
    assert await client.execute(f"{worker.url}/some/path/", WORKER, BODY) is PushAnswer.ACCEPTED
    [request] = worker.received
    assert (request.method, request.path, request.body) == ("POST", "/some/path/execute", BODY)
    assert request.headers == {
        "host": f"127.0.0.1:{worker.port}",
        "x-worker-id": WORKER,
        "content-type": "application/json",
        "content-length": str(len(BODY)),
    }


async def test_a_cancel_is_posted_without_a_body(client: PushClient, worker: FakeWorker) -> None:
    assert await client.cancel(worker.url, WORKER, "run-1") is CancelAnswer.REQUESTED
    [request] = worker.received
    assert (request.method, request.path, request.body) == ("POST", "/cancel/run-1", b"")
    assert request.headers["x-worker-id"] == WORKER
    assert "content-type" not in request.headers  # with one, some servers refuse an empty body


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (answer(200, ACCEPTED), PushAnswer.ACCEPTED),
        (answer(202), PushAnswer.ACCEPTED),
        (b"HTTP/1.1 204 No Content\r\n\r\n", PushAnswer.ACCEPTED),
        (answer(429), PushAnswer.FULL),
        (MISMATCH, PushAnswer.MISMATCH),
        (answer(400, b'{"error":"no such thing"}'), PushAnswer.REJECTED),
        (answer(404), PushAnswer.REJECTED),
        (answer(500), PushAnswer.REJECTED),
        (answer(503), PushAnswer.REJECTED),
        (answer(502), PushAnswer.AMBIGUOUS),
        (answer(504), PushAnswer.AMBIGUOUS),
        (answer(999), PushAnswer.REJECTED),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(200), PushAnswer.ACCEPTED),
        (b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + answer(429), PushAnswer.FULL),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", PushAnswer.ACCEPTED),
    ],
)
async def test_the_status_says_what_became_of_a_push(
    client: PushClient, worker: FakeWorker, sent: bytes, expected: PushAnswer
) -> None:
    worker.answering = sends(sent)
    assert await push(client, worker) is expected
    worker.answering = sends(*(sent[at : at + 1] for at in range(len(sent))))
    assert await push(client, worker) is expected
    assert [request.connection for request in worker.received] == [1, 1]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (answer(200), CancelAnswer.REQUESTED),
        (answer(404), CancelAnswer.UNKNOWN),
        (MISMATCH, CancelAnswer.FAILED),
        (answer(500), CancelAnswer.FAILED),
        (answer(302, location="/other"), CancelAnswer.FAILED),
    ],
)
async def test_the_status_says_what_became_of_a_cancel(
    client: PushClient, worker: FakeWorker, sent: bytes, expected: CancelAnswer
) -> None:
    worker.answering = sends(sent)
    assert await client.cancel(worker.url, WORKER, "run-1") is expected


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(client: PushClient, worker: FakeWorker, status: int) -> None:
    async with FakeWorker() as other:
        worker.answering = sends(answer(status, location=f"{other.url}/execute"))
        assert await push(client, worker) is PushAnswer.REJECTED
        assert (other.connections, len(worker.received)) == (0, 1)


# Nothing was sent


async def test_only_a_refused_connection_says_that_nobody_listens(client: PushClient, worker: FakeWorker) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not await client.listens(f"http://127.0.0.1:{free.getsockname()[1]}", WORKER)
    assert await client.listens(worker.url, WORKER)
    assert await client.listens("http://no-such-worker.invalid:8000", WORKER)
    assert await client.listens("nonsense", WORKER)
    assert worker.received == []


async def test_a_port_where_nobody_listens_is_refused(client: PushClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert await client.execute(url, WORKER, BODY) is PushAnswer.REFUSED
    assert await client.cancel(url, WORKER, "run-1") is CancelAnswer.FAILED


async def test_a_name_that_does_not_exist_is_refused(client: PushClient) -> None:
    assert await client.execute("http://no-such-worker.invalid:8000", WORKER, BODY) is PushAnswer.REFUSED


async def test_a_name_of_a_forbidden_address_is_refused(worker: FakeWorker, caplog: pytest.LogCaptureFixture) -> None:
    client = PushClient(PushPolicy(loopback=False))
    with caplog.at_level(logging.INFO, "dormice.workers"):
        assert await client.execute(f"http://localhost:{worker.port}/secret", WORKER, BODY) is PushAnswer.REFUSED
    assert worker.connections == 0
    assert "has no address that this server may connect to" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}", "http://[::ffff:127.0.0.1]:{}", "http://me@localhost:{}", "{}"])
async def test_a_url_that_is_not_allowed_any_more_is_refused(worker: FakeWorker, url: str) -> None:
    client = PushClient(PushPolicy(loopback=False))
    assert await client.execute(url.format(worker.port), WORKER, BODY) is PushAnswer.REFUSED
    assert worker.connections == 0


async def test_a_host_that_does_not_take_connections_is_refused(impatient: PushClient) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as first:
        first.connect(listener.getsockname())  # what comes next waits for somebody to accept this one
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert await impatient.execute(url, WORKER, BODY) is PushAnswer.REFUSED


async def test_a_push_that_found_no_free_connection_in_time_is_refused(
    impatient: PushClient, client: PushClient, worker: FakeWorker
) -> None:
    worker.answering = keeps_silent
    pushes = [push(impatient, worker) for _ in range(CONNECTIONS_PER_ORIGIN)]
    async with asyncio.TaskGroup() as group:
        for waiting in pushes:
            group.create_task(_expect(waiting, PushAnswer.AMBIGUOUS))
        await seen(CONNECTIONS_PER_ORIGIN, worker)
        await _expect(_sooner(impatient, worker), PushAnswer.REFUSED)
    assert len(worker.received) == CONNECTIONS_PER_ORIGIN
    worker.answering = sends(answer(200))
    assert await push(client, worker) is PushAnswer.ACCEPTED


async def _sooner(client: PushClient, worker: FakeWorker) -> PushAnswer:
    reply = await client._post(worker.url, "/execute", WORKER, BODY, 0.01)
    return PushAnswer.REFUSED if reply is None else PushAnswer.AMBIGUOUS


async def _expect(waiting: Awaitable[PushAnswer], expected: PushAnswer) -> None:
    assert await waiting is expected


# Something was sent, and the answer is missing or broken


@pytest.mark.parametrize(
    "answering",
    [
        keeps_silent,
        sends(b"HTTP/1.1 200 OK\r\nserver: slow"),
        sends(ends=True),
        sends(b"HTTP/1.1 200 OK\r\nserver: cut", ends=True),
        resets,
        sends(b"SSH-2.0-OpenSSH_9.2\r\n"),
        sends(b"HTTP/1.1 000 Nothing\r\n\r\n", ends=True),
        sends(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        repeats(b"HTTP/1.1 200 OK\r\nx: ", b"x"),
        repeats(b"HTTP/1.1 200 OK\r\nx: ", b"x" * 10_000),
        repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=[
        "silence",
        "half a head, then silence",
        "end",
        "half a head, then the end",
        "reset",
        "another protocol",
        "status 0",
        "upgrade",
        "dripping head",
        "endless head",
        "endless hints",
    ],
)
async def test_without_a_status_line_the_run_may_have_been_accepted(
    impatient: PushClient, worker: FakeWorker, answering: Answering
) -> None:
    worker.answering = answering
    assert await push(impatient, worker) is PushAnswer.AMBIGUOUS
    await all_closed(worker)
    assert await impatient.cancel(worker.url, WORKER, "run-1") is CancelAnswer.FAILED
    assert [request.path for request in worker.received] == ["/execute", "/cancel/run-1"]


@pytest.mark.parametrize(
    "rest",
    [
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", ends=True),
        sends(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        repeats(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        repeats(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n", b"x" * 10_000),
    ],
    ids=["slow body", "cut body", "broken body", "dripping body", "endless body"],
)
async def test_a_status_line_counts_even_if_the_rest_is_not_read(
    impatient: PushClient, worker: FakeWorker, rest: Answering
) -> None:
    worker.answering = rest
    assert await push(impatient, worker) is PushAnswer.ACCEPTED
    await all_closed(worker)
    assert len(worker.received) == 1


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (repeats(b"HTTP/1.1 200 OK\r\nx: ", b"x" * 100), PushAnswer.AMBIGUOUS),
        (sends(answer(200, x="x" * 3000)), PushAnswer.AMBIGUOUS),
        (repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), PushAnswer.AMBIGUOUS),
        (repeats(b"HTTP/1.1 429 Full\r\n\r\n", b"x" * 100), PushAnswer.FULL),
        (sends(answer(429, b"x" * 3000)), PushAnswer.FULL),
    ],
    ids=["endless head", "long head", "endless hints", "endless body", "long body"],
)
async def test_no_more_than_the_limit_is_read(
    patient: PushClient, worker: FakeWorker, sent: Answering, expected: PushAnswer
) -> None:
    worker.answering = sent
    assert await push(patient, worker) is expected
    await all_closed(worker)


async def test_an_answer_without_a_length_ends_with_its_connection(client: PushClient, worker: FakeWorker) -> None:
    worker.answering = sends(b"HTTP/1.0 400 Bad\r\n\r\n", b'{"error":"Worker ID ', b'mismatch"}', ends=True)
    assert await push(client, worker) is PushAnswer.MISMATCH


# Connections that are kept


async def test_a_connection_is_used_again(client: PushClient, worker: FakeWorker) -> None:
    for sent in (answer(200), answer(429), MISMATCH, answer(503), answer(200)):
        worker.answering = sends(sent)
        await push(client, worker)
    assert await client.cancel(worker.url, WORKER, "run-1") is CancelAnswer.REQUESTED
    assert [request.connection for request in worker.received] == [1] * 6


@pytest.mark.parametrize(
    "sent",
    [
        answer(200, connection="close"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        answer(200) + answer(429),
        answer(200) + b"more",
        answer(200) + answer(200)[:20],
    ],
    ids=["close", "HTTP/1.0", "two answers", "rubbish after it", "half an answer after it"],
)
async def test_a_connection_that_may_be_out_of_step_is_not_used_again(
    client: PushClient, worker: FakeWorker, sent: bytes
) -> None:
    worker.answering = sends(sent)
    assert await push(client, worker) is PushAnswer.ACCEPTED
    assert await push(client, worker) is PushAnswer.ACCEPTED
    assert [request.connection for request in worker.received] == [1, 2]


async def test_what_is_said_between_requests_is_no_answer_to_the_next(client: PushClient) -> None:
    async with RawWorker() as raw:
        assert await raw.answered(client, answer(200), connection=1) is PushAnswer.ACCEPTED
        raw.last.send(answer(429))  # the loop has no chance to notice before the next push
        assert await raw.answered(client, answer(503), connection=2) is PushAnswer.REJECTED


async def test_an_answer_before_the_end_of_the_request_ends_the_connection(client: PushClient) -> None:
    async with RawWorker() as raw:
        assert await raw.answered(client, answer(429), connection=1, body=BODY * 400_000) is PushAnswer.FULL
        assert await raw.answered(client, answer(200), connection=2) is PushAnswer.ACCEPTED


async def test_a_kept_connection_that_has_ended_is_seen_before_anything_is_sent(client: PushClient) -> None:
    async with RawWorker() as raw:
        assert await raw.answered(client, answer(200), connection=1) is PushAnswer.ACCEPTED
        raw.last.shutdown(socket.SHUT_WR)  # the loop has no chance to notice before the next push
        assert await raw.answered(client, answer(200), connection=2) is PushAnswer.ACCEPTED
        assert raw.accepted[0].recv(1) == b""  # nothing of the second request went there


async def test_a_kept_connection_that_was_reset_is_seen_before_anything_is_sent(client: PushClient) -> None:
    async with RawWorker() as raw:
        assert await raw.answered(client, answer(200), connection=1) is PushAnswer.ACCEPTED
        reset(raw.last)
        raw.last.close()
        assert await raw.answered(client, answer(200), connection=2) is PushAnswer.ACCEPTED


@pytest.mark.parametrize("read", [True, False], ids=["after it was read", "unread"])
async def test_a_push_on_a_kept_connection_that_ends_meanwhile_is_not_repeated(
    client: PushClient, *, read: bool
) -> None:
    async with RawWorker() as raw:
        assert await raw.answered(client, answer(200), connection=1) is PushAnswer.ACCEPTED
        async with asyncio.TaskGroup() as group:
            pushing = group.create_task(client.execute(raw.url, WORKER, BODY))
            await raw.request_arrived(1, read=read)
            reset(raw.last)
            raw.last.close()
        assert pushing.result() is PushAnswer.AMBIGUOUS
        assert not await raw.somebody_waits()


async def test_many_pushes_share_a_bounded_number_of_connections(client: PushClient, worker: FakeWorker) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(10 * CONNECTIONS_PER_ORIGIN):
            group.create_task(_expect(push(client, worker), PushAnswer.ACCEPTED))
    assert len(worker.received) == 10 * CONNECTIONS_PER_ORIGIN
    assert worker.connections <= CONNECTIONS_PER_ORIGIN


async def test_a_slow_worker_does_not_hold_up_another(client: PushClient, worker: FakeWorker) -> None:
    worker.answering = keeps_silent
    async with FakeWorker() as other, asyncio.TaskGroup() as group:
        slow = [group.create_task(_expect(push(client, worker), PushAnswer.AMBIGUOUS)) for _ in range(20)]
        await seen(CONNECTIONS_PER_ORIGIN, worker)
        assert await push(client, other) is PushAnswer.ACCEPTED
        for each in slow:
            each.cancel()


async def test_a_connection_in_use_is_not_idle(
    client: PushClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.05)
    assert await push(client, worker) is PushAnswer.ACCEPTED

    async def answers_late(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await others_run(0.15)
        writer.write(answer(200))

    worker.answering = answers_late
    for _ in range(2):
        assert await push(client, worker) is PushAnswer.ACCEPTED
    assert [request.connection for request in worker.received] == [1, 1, 1]
    assert caplog.records == []


async def test_an_idle_connection_is_closed_and_forgotten(
    client: PushClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.01)
    assert await push(client, worker) is PushAnswer.ACCEPTED
    await all_closed(worker)
    assert client._connections._lanes == {}
    assert await push(client, worker) is PushAnswer.ACCEPTED


async def test_a_caller_that_goes_away_leaves_nothing_behind(client: PushClient, worker: FakeWorker) -> None:
    worker.answering = keeps_silent
    for number in range(1, CONNECTIONS_PER_ORIGIN + 3):
        async with asyncio.TaskGroup() as group:
            pushing = group.create_task(_expect(push(client, worker), PushAnswer.AMBIGUOUS))
            await seen(number, worker)
            pushing.cancel()
    await all_closed(worker)
    assert client._connections._lanes == {}


async def test_closing_ends_what_is_under_way(patient: PushClient, worker: FakeWorker) -> None:
    worker.answering = keeps_silent
    async with asyncio.TaskGroup() as group:
        under_way = [group.create_task(push_of(patient, worker)) for _ in range(CONNECTIONS_PER_ORIGIN)]
        await seen(CONNECTIONS_PER_ORIGIN, worker)
        waiting = group.create_task(push_of(patient, worker))
        await others_run()
        await patient.close()
    assert {each.result() for each in under_way} == {PushAnswer.AMBIGUOUS}
    assert waiting.result() is PushAnswer.REFUSED
    assert await push(patient, worker) is PushAnswer.REFUSED
    assert worker.connections == CONNECTIONS_PER_ORIGIN
    await all_closed(worker)


async def test_closing_closes_what_is_idle(client: PushClient, worker: FakeWorker) -> None:
    assert await push(client, worker) is PushAnswer.ACCEPTED
    await client.close()
    await all_closed(worker)
    assert client._connections._lanes == {}


async def test_a_connection_that_was_lost_before_the_request_says_so(worker: FakeWorker) -> None:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: HttpConnection(2000), "127.0.0.1", worker.port)
    connection.close()
    with pytest.raises(ConnectionResetError):
        await connection.ask(b"GET / HTTP/1.1\r\n\r\n")
    assert not connection.asked


async def push_of(client: PushClient, worker: FakeWorker) -> PushAnswer:
    return await push(client, worker)


# Names


class Names:
    """A resolver. `answers` are given one after the other, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = [[ip_address(address) for address in each] for each in answers]
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[Address]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def push_by_name(names: Names, port: int, policy: PushPolicy, host: str = "Worker.Example.com") -> PushAnswer:
    client = PushClient(policy, look_up=names)
    try:
        return await client.execute(f"http://{host}:{port}", WORKER, BODY)
    finally:
        await client.close()


LOCAL = PushPolicy(loopback=True)


async def test_a_name_is_looked_up_once_per_connection_and_kept_in_the_host_header(worker: FakeWorker) -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    client = PushClient(LOCAL, look_up=names)
    url = f"http://Worker.Example.com:{worker.port}"
    for _ in range(3):
        assert await client.execute(url, WORKER, BODY) is PushAnswer.ACCEPTED
    assert names.asked == ["worker.example.com"]
    assert worker.received[0].headers["host"] == f"Worker.Example.com:{worker.port}"
    worker.end_all()
    await all_closed(worker)
    assert await client.execute(url, WORKER, BODY) is PushAnswer.REFUSED  # now it is the name of something else
    assert len(names.asked) == 2
    await client.close()


async def test_ipv4_is_tried_first(worker: FakeWorker) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    async with FakeWorker(host="::1", port=worker.port) as other:
        names = Names(["::1", "127.0.0.1"])
        assert await push_by_name(names, worker.port, LOCAL, "localhost") is PushAnswer.ACCEPTED
        assert (worker.connections, other.connections) == (1, 0)
        client = PushClient(LOCAL)
        assert await client.execute(f"http://[::1]:{worker.port}", WORKER, BODY) is PushAnswer.ACCEPTED
        assert other.received[0].headers["host"] == f"[::1]:{worker.port}"
        await client.close()


async def test_the_next_address_is_tried_when_nobody_listens_at_one(worker: FakeWorker) -> None:
    names = Names(["127.0.0.3", "127.0.0.2", "127.0.0.1"])
    assert await push_by_name(names, worker.port, LOCAL) is PushAnswer.ACCEPTED


async def test_only_so_many_addresses_are_tried(worker: FakeWorker) -> None:
    names = Names(["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.1"])
    assert await push_by_name(names, worker.port, LOCAL) is PushAnswer.REFUSED
    assert worker.connections == 0


async def test_forbidden_addresses_of_a_name_are_passed_over(worker: FakeWorker) -> None:
    names = Names(["169.254.169.254", "0.0.0.0", "127.0.0.1"])
    assert await push_by_name(names, worker.port, LOCAL) is PushAnswer.ACCEPTED
    assert await push_by_name(names, worker.port, PushPolicy(loopback=False)) is PushAnswer.REFUSED


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ("example.com", PushAnswer.ACCEPTED),
        ("127.0.0.0/8", PushAnswer.ACCEPTED),
        ("example.net", PushAnswer.REFUSED),
        ("10.0.0.0/8", PushAnswer.REFUSED),
    ],
)
async def test_a_list_is_kept_to(worker: FakeWorker, allowed: str, expected: PushAnswer) -> None:
    policy = PushPolicy(loopback=True, allowed=(allowed,))
    assert await push_by_name(Names(["127.0.0.1"]), worker.port, policy) is expected
    assert worker.connections == (expected is PushAnswer.ACCEPTED)


class RawWorker:
    """A worker by hand: what happens on its sockets happens before the loop of the client has another turn."""

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted: list[socket.socket] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in (self._listener, *self.accepted):
            connection.close()

    @property
    def last(self) -> socket.socket:
        return self.accepted[-1]

    async def answered(self, client: PushClient, sent: bytes, *, connection: int, body: bytes = BODY) -> PushAnswer:
        """Push, take the request's first bytes from the connection of this number and answer `sent`."""
        async with asyncio.TaskGroup() as group:
            pushing = group.create_task(client.execute(self.url, WORKER, body))
            await self.request_arrived(connection, read=True)
            self.last.send(sent)
        return pushing.result()

    async def request_arrived(self, connection: int, *, read: bool) -> None:
        async def arrived() -> bool:
            await self._accept()
            return len(self.accepted) == connection and self._peek()

        await wait_until_async(arrived, 5, "a request")
        if read:
            self.last.recv(65536)

    async def somebody_waits(self) -> bool:
        await others_run()
        before = len(self.accepted)
        await self._accept()
        return len(self.accepted) > before

    async def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        self.accepted.append(connection)

    def _peek(self) -> bool:
        try:
            return bool(self.last.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
