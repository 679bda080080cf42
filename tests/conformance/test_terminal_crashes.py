"""Server, node or both are killed while a terminal is used: its shell goes on, and what it showed comes once and whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conformance.terminals import PLAIN, create, ended, shown, window
from tests.conftest import StartLive
from tests.live import Live, new_key

COUNT = """
stty -echo
n=0
until read -t 0; do
    n=$((n + 1))
    echo "line $n of those that must come once"
    sleep 0.01
done
read line
echo "read $line after $n"
exit 6
"""
LINE = b"line %d of those that must come once\r\n"


def _kill_server(live: Live) -> None:
    live.kill("server")


def _kill_node(live: Live) -> None:
    live.kill("node")


def _kill_everything(live: Live) -> None:
    live.kill_all()
    live.start()


def _restart(live: Live) -> None:
    live.stop()
    live.start()


@pytest.fixture(
    scope="module", name="crashing", params=["process", pytest.param("container", marks=pytest.mark.machines)]
)
def _crashing(request: pytest.FixtureRequest, start_live: StartLive) -> Iterator[Live]:
    with start_live(request.param) as live:
        yield live


@pytest.mark.parametrize("crash", [_kill_server, _kill_node, _kill_everything, _restart])
def test_the_shell_goes_on_and_what_it_showed_comes_once_and_whole(
    crashing: Live, crash: Callable[[Live], None]
) -> None:
    live = crashing
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        key, body = new_key(), {"width": 80, "height": 24, "command": ["bash", "-c", COUNT]}
        record = api.post(f"/v1/machines/{machine}/terminals", json=body, headers=key, params={"wait_ms": 9_000}).json()
        with window(record["stream_url"]) as one:
            one.wait_for(LINE % 30)
            crash(live)
            live.wait_ready()
        again = api.post(f"/v1/machines/{machine}/terminals", json=body, headers=key).json()
        assert again["terminal_id"] == record["terminal_id"], "a key is remembered"
        seen = int(one.seen.rpartition(b"line ")[2].split(b" ")[0] or 0)
        with window(f"{again['stream_url']}&after={one.after}") as other:
            other.wait_for(b"line %d " % (seen + 30))
            other.type("typed\n")
            assert other.end() == 1000
        text = one.seen + other.seen
        assert text == shown(api, record)
        last = int(text.rpartition(b"after ")[2])
        assert text == b"".join(LINE % n for n in range(1, last + 1)) + b"read typed after %d\r\n" % last
        assert ended(api, record)["exit_code"] == 6
        api.delete(f"/v1/machines/{machine}", headers=new_key())


@pytest.mark.parametrize("crash", [_kill_server, _kill_node, _kill_everything])
def test_what_was_typed_reaches_the_shell_at_most_once_and_in_order(
    start_live: StartLive, crash: Callable[[Live], None]
) -> None:
    with start_live() as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        record = create(api, machine, "bash", "-c", "stty -echo; echo ready; cat", env=PLAIN)
        with window(record["stream_url"]) as one:
            one.wait_for(b"ready\r\n")
            for number in range(500):
                one.type(f"{number}\n")
            one.wait_for(b"\n3\r\n")
            crash(live)
            live.wait_ready()
        url = api.get(f"/v1/machines/{machine}/terminals/{record['terminal_id']}").json()["stream_url"]
        with window(f"{url}&after={one.after}") as other:
            other.type("over\n")
            other.wait_for(b"over\r\n")
            other.type(b"\x04")
            assert other.end() == 1000
        numbers = [int(word) for word in (one.seen + other.seen).split() if word.isdigit()]
        assert numbers == list(range(len(numbers))), "a beginning of what was typed, each once"
