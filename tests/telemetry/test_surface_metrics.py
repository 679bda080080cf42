"""What `/metrics` says of SSH, terminals, previews and webhooks, compared with what was done."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dormice.engine.census import Census, StoredCensus
from dormice.engine.runs.census import RunCensus
from dormice.engine.ssh_traffic import SshTraffic
from dormice.store.interface import Commits, StoreUnavailable
from dormice.telemetry.counts import Counts
from dormice.telemetry.prometheus import Exposition
from tests.conformance import terminals
from tests.conftest import StartLive
from tests.live import Api, Live, new_key, path_of
from tests.ssh.login import Login, log_in
from tests.telemetry.scraping import Samples, risen, scrape, value
from tests.wait import wait_until
from tests.webhooks.receiver import receiving

FAILURES = 3


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    """A Dormice that nobody else uses, with SSH, and that may call this host."""
    settings = {
        "DORMICE_SSH_LISTEN": "127.0.0.1:0",
        "DORMICE_LIMIT_SSH_FAILED_LOGINS_PER_MINUTE": str(FAILURES),
        "DORMICE_WEBHOOK_ALLOW": "127.0.0.0/8",
        "DORMICE_LIMIT_WEBHOOK_FIRST_RETRY_MS": "3600000",
    }
    with start_live(**settings) as live:
        yield live


@pytest.fixture(name="login")
def _login(api: Api, machine: str, directory: Callable[[], Path]) -> Login:
    return log_in(api, machine, directory())


def ssh(samples: Samples, what: str, **labels: str) -> float:
    return value(samples, f"dormice_ssh_{what}", **labels)


def test_a_session_counts_until_it_is_deleted(api: Api, machine: str, directory: Callable[[], Path]) -> None:
    before = scrape(api)
    login = log_in(api, machine, directory())
    after = scrape(api)
    assert risen(before, after, "dormice_ssh_sessions_created_total") == 1
    assert risen(before, after, "dormice_ssh_sessions_open", status="ready") == 1
    assert ssh(after, "sessions_open", status="wake_in_progress") == 0
    api.delete(login.path, headers=new_key()).raise_for_status()
    assert risen(before, scrape(api), "dormice_ssh_sessions_open", status="ready") == 0


def test_what_ssh_carries_is_counted_both_ways(api: Api, login: Login) -> None:
    before = scrape(api)
    done = login.run("head -c 300000 /dev/zero; wc -c >&2", stdin=b"x" * 200_000)
    assert (len(done.stdout), done.stderr) == (300_000, b"200000\n")
    after = scrape(api)
    assert risen(before, after, "dormice_ssh_bytes_total", direction="received") == 200_000
    assert risen(before, after, "dormice_ssh_bytes_total", direction="sent") == 300_000 + len(done.stderr)
    assert risen(before, after, "dormice_ssh_logins_total", result="accepted") == 1
    assert risen(before, after, "dormice_ssh_logins_total", result="failed") == 0


def test_connections_are_shown_while_they_last(api: Api, login: Login) -> None:
    def shown() -> tuple[float, float]:
        samples = scrape(api)
        return ssh(samples, "connections", state="logging_in"), ssh(samples, "connections", state="logged_in")

    wait_until(lambda: shown() == (0, 0), 10, "nobody is there")
    with socket.create_connection((login.host, login.port)):
        wait_until(lambda: shown() == (1, 0), 10, "one is logging in")
    with subprocess.Popen(login.command("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as inside:
        wait_until(lambda: shown() == (0, 1), 20, "one is logged in")
        inside.kill()
    wait_until(lambda: shown() == (0, 0), 10, "nobody is there any more")


def _equal(number: Callable[[], float], wanted: float) -> bool:
    return number() == wanted


def test_failed_and_refused_connections_are_told_apart(api: Api, login: Login) -> None:
    before = scrape(api)

    def rise(result: str) -> float:
        return risen(before, scrape(api), "dormice_ssh_logins_total", result=result)

    def counted() -> float:
        return rise("failed") + rise("refused")

    tried = 0
    while not rise("refused"):  # a failure is paid off in 20 s, so it is the fourth that fails, or the fifth
        assert tried < FAILURES + 2
        with socket.create_connection((login.host, login.port), source_address=("127.0.0.9", 0)):
            tried += 1  # of another address: nobody else is kept out
        wait_until(partial(_equal, counted, tried), 10, "it is counted")
    assert tried > FAILURES
    assert (rise("failed"), rise("refused"), rise("accepted")) == (tried - 1, 1, 0)


def test_terminals_count_while_their_shell_runs(api: Api, machine: str) -> None:
    before = scrape(api)
    other = api.execute(machine, "sleep", "600", wait_ms=0)
    terminal = terminals.create(api, machine)
    assert risen(before, scrape(api), "dormice_terminals_open") == 1, "of two executions one is a terminal"
    api.delete(path_of(other), headers=new_key()).raise_for_status()
    api.delete(terminals.path(machine, terminal["terminal_id"]), headers=new_key()).raise_for_status()
    wait_until(lambda: risen(before, scrape(api), "dormice_terminals_open") == 0, 10, "it has ended")


def test_previews_count_while_they_are_open_and_requests_through_them_do(api: Api, machine: str) -> None:
    before = scrape(api)
    made = api.post(
        f"/v1/machines/{machine}/previews",
        json={"port": 9, "visibility": "public"},
        params={"wait_ms": 20_000},
        headers=new_key(),
    )
    record = made.raise_for_status().json()
    assert api.get(record["url"]).status_code == 502
    after = scrape(api)
    assert risen(before, after, "dormice_previews_open", status="ready") == 1
    through = {"method": "GET", "route": "/p/{preview_id}", "status": "502"}
    assert risen(before, after, "dormice_http_requests_total", **through) == 1
    api.delete(f"/v1/machines/{machine}/previews/{record['preview_id']}", headers=new_key()).raise_for_status()
    assert risen(before, scrape(api), "dormice_previews_open", status="ready") == 0


@contextmanager
def told(api: Api, url: str) -> Iterator[str]:
    """Have a webhook; yield its path."""
    made = api.post("/v1/webhooks", json={"url": url, "events": ["machine.failed"]}).raise_for_status().json()
    path = f"/v1/webhooks/{made['webhook_id']}"
    yield path
    api.delete(path).raise_for_status()


def sent(api: Api, path: str) -> dict[str, Any]:
    """Send a test event, and return its delivery after the attempt."""
    delivery: dict[str, Any] = api.post(f"{path}/test", params={"wait_ms": 20_000}).raise_for_status().json()
    return delivery


def of_webhooks(before: Samples, after: Samples) -> dict[str, float]:
    """What has risen meanwhile, by the last label."""
    names = {
        "attempts": "dormice_webhook_attempts_total",
        "deliveries": "dormice_webhook_deliveries_finished_total",
        "pending": "dormice_webhook_deliveries_pending",
    }
    rises = {
        " ".join([short, *(word for _, word in labels)]): risen(before, after, name, **dict(labels))
        for short, name in names.items()
        for found, labels in after
        if found == name
    }
    return {key: rise for key, rise in rises.items() if rise}


def test_deliveries_are_counted_by_what_came_of_them(api: Api) -> None:
    with receiving() as receiver, told(api, receiver.url) as good, told(api, "http://127.0.0.1:9/") as dead:
        before = scrape(api)
        assert sent(api, good)["status"] == "delivered"
        assert of_webhooks(before, scrape(api)) == {"attempts accepted": 1, "deliveries delivered": 1}
        receiver.status = 500
        again = sent(api, good)
        assert again["status"] == "pending"
        assert of_webhooks(before, scrape(api)) == {
            "attempts accepted": 1,
            "attempts refused": 1,
            "deliveries delivered": 1,
            "pending": 1,
        }
        assert sent(api, dead)["status"] == "pending"
        after = scrape(api)
        assert of_webhooks(before, after)["attempts unanswered"] == 1
        assert of_webhooks(before, after)["pending"] == 2
        assert value(after, "dormice_webhook_queue_oldest_age_seconds") == 0, "both wait for another attempt"
        api.patch(dead, json={"enabled": False}).raise_for_status()
        assert of_webhooks(before, scrape(api))["pending"] == 1, "nothing is sent to one that is disabled"
    assert value(scrape(api), "dormice_webhook_deliveries_pending") == 0


def test_what_an_endpoint_does_not_answer_grows_old_until_it_does(api: Api, live: Live) -> None:
    with receiving() as receiver, told(api, receiver.url) as path:
        receiver.hold = threading.Event()
        api.post(f"{path}/test").raise_for_status()
        wait_until(lambda: age(api) > 0.2, 10, "it is due for a while")
        live.kill("server")
        live.wait_ready()
        assert age(api) > 0.2, "a restart does not make it younger"
        receiver.hold.set()
        wait_until(lambda: age(api) == 0, 20, "it was sent")
        assert value(scrape(api), "dormice_webhook_deliveries_finished_total", status="delivered") == 1


def age(api: Api) -> float:
    return value(scrape(api), "dormice_webhook_queue_oldest_age_seconds")


async def test_a_store_that_cannot_be_read_does_not_take_the_other_figures_along() -> None:
    async def unavailable() -> StoredCensus:
        raise StoreUnavailable("the disk is full")

    async def stored() -> StoredCensus:
        return StoredCensus({}, {}, 7, 0)

    def parts() -> Mapping[str, tuple[bool, str]]:
        return {"store": (False, "")}

    shown = [
        await Exposition(
            version="1",
            counts=Counts(),
            commits=Commits(),
            census=lambda: Census({}, {}, 0, 0),
            run_census=lambda: RunCensus({}, 0, 0, {}, {}),
            stored_census=census,
            ssh=SshTraffic(),
            parts=parts,
        ).exposition()
        for census in (stored, unavailable)
    ]
    pending, ready = b"dormice_webhook_deliveries_pending 7.0", b'dormice_part_ready{part="store"} 0.0'
    assert [pending in text for text in shown] == [True, False]
    assert all(ready in text for text in shown)
