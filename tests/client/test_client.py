"""The synchronous client against a real HTTP server, on both transports."""

from __future__ import annotations

from typing import Any

import pytest

from dormice import (
    AuthenticationError,
    ConflictError,
    Dormice,
    Execution,
    NotFoundError,
    UnprocessableEntityError,
    WaitTimeoutError,
)
from tests.client.fake_server import Answer, FakeServer


def test_a_machine_is_made_changed_put_to_sleep_woken_and_destroyed(client: Dormice, server: FakeServer) -> None:
    machine = client.machines.create(vcpu=2, memory_mib=1024, storage_gib=8, autosleep="5m", image="big", wait_ms=9)
    assert (machine.vcpu, machine.memory_mib, machine.storage_gib, machine.image) == (2, 1024, 8, "big")
    assert server.requests[-1].query == {"wait_ms": "9"}
    assert client.machines.update(machine.machine_id, memory_mib=2048).memory_mib == 2048
    assert server.requests[-1].body == {"memory_mib": 2048}
    assert client.machines.sleep(machine_id=machine.machine_id).phase == "sleeping"
    assert client.machines.wake(machine_id=machine.machine_id).status.phase == "running"
    assert client.machines.retrieve(machine_id=machine.machine_id) == client.machines.list().items[0]
    assert client.machines.delete(machine_id=machine.machine_id).desired_state == "destroyed"


def test_watching_a_machine_ends_when_the_server_ends_the_stream(client: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    with client.machines.watch(machine_id=machine_id, last_event_id="0") as changes:
        assert [machine.phase for machine in changes] == ["running"]
    assert server.requests[-1].headers["last-event-id"] == "0"


def test_the_helper_of_the_documents_works_as_printed(client: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    made = client.machines.executions.create(machine_id=machine_id, command=["echo", "hello"], env={"A": "1"}, cwd="/")
    found = client.machines.executions.retrieve(machine_id=machine_id, execution_id=made.execution_id)
    out = client.machines.executions.output(machine_id=machine_id, execution_id=found.execution_id)
    page = client.machines.executions.events(machine_id=machine_id, execution_id=found.execution_id)
    assert found.finished
    assert found.env_keys == ["A"]
    assert out.stdout == "hello\n"
    assert [(e.sequence, e.type, e.chunk) for e in page.items] == [
        (1, "lifecycle", None),
        (2, "stdout", "hello\n"),
        (3, "lifecycle", None),
    ]
    assert client.machines.executions.delete(machine_id=machine_id, execution_id=made.execution_id) == found
    assert [e.execution_id for e in client.machines.executions.list(machine_id=machine_id)] == [found.execution_id]


def test_iterating_over_a_list_walks_all_its_pages_and_keeps_its_limit(client: Dormice, server: FakeServer) -> None:
    ids = [server.machine() for _ in range(5)]
    page = client.machines.list(limit=2)
    assert len(page.items) == 2
    assert page.has_next_page()
    assert [machine.machine_id for machine in page] == ids
    assert [request.query for request in server.requests] == [
        {"limit": "2"},
        {"limit": "2", "cursor": "2"},
        {"limit": "2", "cursor": "4"},
    ]


def test_an_empty_page_ends_the_walk_even_if_it_has_a_cursor(client: Dormice, server: FakeServer) -> None:
    server.planned.append(Answer(200, body={"items": [], "next_cursor": "again"}))
    page = client.machines.list()
    assert list(page) == []
    with pytest.raises(RuntimeError, match="last page"):
        page.get_next_page()


def test_a_run_returns_the_record_and_the_exact_bytes_of_both_streams(client: Dormice, server: FakeServer) -> None:
    done = client.machines.run(server.machine(), ["both"])
    assert (done.status, done.exit_code, done.stdout, done.stderr) == ("succeeded", 0, b"out\nmore\n", b"err\xff\n")


def test_a_run_with_listeners_is_live_and_tells_its_execution_first(client: Dormice, server: FakeServer) -> None:
    heard: list[tuple[str, object]] = []
    done = client.machines.run(
        server.machine(asleep=True),
        ["both"],
        on_stdout=lambda data: heard.append(("out", data)),
        on_stderr=lambda data: heard.append(("err", data)),
        on_created=lambda execution: heard.append(("created", execution.execution_id)),
    )
    assert heard == [("created", done.execution_id), ("out", b"out\n"), ("err", b"err\xff\n"), ("out", b"more\n")]
    assert done.stdout == b"out\nmore\n"


def test_a_run_that_fails_raises_nothing(client: Dormice, server: FakeServer) -> None:
    assert client.machines.run(server.machine(), ["fail", "3"]).exit_code == 3


@pytest.mark.parametrize(
    "stdin", ["héllo", b"plain", b"\xff\xfe", b"x" * 600_000], ids=["text", "utf8", "bytes", "long"]
)
def test_a_run_passes_any_stdin_on(client: Dormice, server: FakeServer, stdin: bytes | str) -> None:
    expected = stdin.encode() if isinstance(stdin, str) else stdin
    assert client.machines.run(server.machine(), ["cat"], stdin=stdin).stdout == expected


def test_a_run_does_not_mind_that_the_process_ends_before_it_has_read_all(client: Dormice, server: FakeServer) -> None:
    assert client.machines.run(server.machine(), ["true"], stdin=b"x" * 600_000).status == "succeeded"


def test_a_stream_that_breaks_goes_on_where_it_broke(client: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    made = client.machines.executions.create(machine_id, command=["echo", "a", "b", "c", "d"])
    server.cut_streams_after.extend([2, 1, 0, 2])
    with client.machines.executions.stream(made.execution_id, machine_id=machine_id) as events:
        seen = list(events)
    assert [event.sequence for event in seen] == [1, 2, 3, 4, 5, 6]
    assert b"".join(event.data for event in seen) == b"a\nb\nc\nd\n"
    assert [r.headers.get("last-event-id") for r in server.sent("GET", "/events")] == [None, "2", "3", "3", "5"]


def test_a_stream_can_begin_behind_any_entry_and_be_left(client: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    made = client.machines.executions.create(machine_id, command=["forever"])
    with client.machines.executions.stream(made.execution_id, machine_id=machine_id, after=1) as events:
        assert next(iter(events)).data == b"ready\n"
    assert not client.machines.executions.retrieve(made.execution_id, machine_id=machine_id).finished


def test_waiting_ends_with_the_execution_or_with_its_time(client: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    made = client.machines.executions.create(machine_id, command=["forever"])
    with pytest.raises(WaitTimeoutError, match="still running"):
        client.machines.executions.wait(made.execution_id, machine_id=machine_id, timeout=0.01)
    client.machines.executions.delete(made.execution_id, machine_id=machine_id)
    ended = client.machines.executions.wait(made.execution_id, machine_id=machine_id, timeout=30)
    assert (ended.status, ended.signal) == ("cancelled", 15)


def test_any_range_of_a_stream_can_be_read(client: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    made = client.machines.executions.create(machine_id, command=["both"])

    def read(start: int, end: int | None = None) -> bytes:
        return client.machines.executions.read_output(
            made.execution_id, machine_id=machine_id, stream="stderr", start=start, end=end
        )

    assert [read(0), read(3), read(1, 3), read(5), read(99), read(2, 2)] == [
        b"err\xff\n",
        b"\xff\n",
        b"rr",
        b"",
        b"",
        b"",
    ]
    with pytest.raises(ValueError, match="start"):
        read(3, 2)


def test_stdin_is_written_by_offset(client: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    made = client.machines.executions.create(machine_id, command=["cat"], stdin_open=True)

    def write(offset: int, data: bytes, *, eof: bool = False) -> int:
        return client.machines.executions.write_stdin(
            made.execution_id, machine_id=machine_id, offset=offset, data=data, eof=eof
        ).offset

    assert [write(0, b"abc"), write(0, b"abc"), write(1, b"bcd")] == [3, 3, 4]
    with pytest.raises(ConflictError) as gap:
        write(9, b"x")
    assert gap.value.details == {"expected_offset": "4"}
    assert write(4, b"", eof=True) == 4
    with pytest.raises(ConflictError):
        write(4, b"x")
    assert client.machines.executions.output(made.execution_id, machine_id=machine_id).stdout == "abcd"


def test_keys_are_made_listed_and_revoked(client: Dormice) -> None:
    key = client.keys.create(organization="other", name="ci", admin=True)
    assert key.key == "dk-abcdefgh"
    assert key.key not in repr(key)
    assert client.keys.list().items[0].prefix == "dk-abc"
    assert client.keys.revoke(key.key_id).revoked_at is not None


def test_limits_are_shown(client: Dormice) -> None:
    limits = client.limits()
    assert limits.limits["argv_bytes"] == 131_071
    assert limits.machine == {"autosleep": "300s"}


def test_errors_of_both_shapes_are_read(client: Dormice, server: FakeServer) -> None:
    with pytest.raises(NotFoundError) as missing:
        client.machines.retrieve("dm-nowhere")
    assert (missing.value.message, missing.value.error_code, missing.value.retryable) == (
        "there is no such thing",
        None,
        False,
    )
    with pytest.raises(UnprocessableEntityError, match=r"invalid request \(body.command: must not be empty\)") as bad:
        client.machines.executions.create(server.machine(), command=[])
    assert bad.value.errors == [{"location": "body.command", "message": "must not be empty"}]
    with Dormice(base_url=server.url, api_key="wrong") as stranger, pytest.raises(AuthenticationError) as denied:
        stranger.limits()
    assert (denied.value.error_code, denied.value.retryable) == ("AUTH_INVALID", False)


def test_ids_stay_within_their_segment(client: Dormice, server: FakeServer) -> None:
    with pytest.raises(NotFoundError):
        client.machines.retrieve("a/b?c")
    assert server.requests[-1].path == "/v1/machines/a/b?c"
    with pytest.raises(ValueError, match="machine_id"):
        client.machines.retrieve("")


def test_records_pass_over_what_they_do_not_know(client: Dormice, server: FakeServer) -> None:
    execution = client.machines.executions.create(server.machine(), command=["true"])
    assert isinstance(execution, Execution)
    assert not hasattr(execution, "a_field_of_tomorrow")


@pytest.mark.parametrize("command", ["uname -a", b"uname"])
def test_one_string_is_no_command(client: Dormice, server: FakeServer, command: Any) -> None:
    machine_id = server.machine()
    with pytest.raises(TypeError, match="a command is a sequence of strings"):
        client.machines.run(machine_id, command)
    with pytest.raises(TypeError, match=type(command).__name__):
        client.machines.executions.create(machine_id, command=command)
    assert not server.requests
