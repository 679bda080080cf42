"""From the making of a preview to its end: sleep, wake, expiry, deletion, a server that is killed."""

from __future__ import annotations

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.previews.conftest import Program, echoed, run_program
from tests.wait import wait_until

SERVE = "import http.server as h, sys; print('port', (s := h.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), h.SimpleHTTPRequestHandler)).server_port, flush=True); s.serve_forever()"


def _path(machine: str) -> str:
    return f"/v1/machines/{machine}/previews"


def test_a_preview_tells_of_itself(program: Program) -> None:
    program.preview()
    made = program.preview(visibility="org", expires_in_seconds=3_600)
    path = f"{_path(program.machine)}/{made['preview_id']}"
    assert program.api.get(path).json() == made
    assert made["visibility"] == "org"
    assert (made["port"], made["protocol"]) == (program.port, "http")
    assert made["created_at"] <= made["ready_at"] < made["expires_at"]
    page = program.api.get(_path(program.machine), params={"limit": 1}).json()
    assert page["items"] == [made]
    assert program.api.get(_path(program.machine), params={"cursor": page["next_cursor"]}).json()["items"]


def test_the_same_key_makes_the_same_preview(program: Program) -> None:
    key = new_key()
    first = program.api.post(_path(program.machine), json={"port": 80}, headers=key).json()
    assert program.api.post(_path(program.machine), json={"port": 80}, headers=key).json() == first
    other = program.api.post(_path(program.machine), json={"port": 81}, headers=key)
    assert (other.status_code, other.json()["error_code"]) == (409, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"port": 0}, "body.port"),
        ({"port": 65_536}, "body.port"),
        ({"port": "80"}, "body.port"),
        ({}, "body.port"),
        ({"port": 80, "protocol": "ftp"}, "body.protocol"),
        ({"port": 80, "visibility": "all"}, "body.visibility"),
        ({"port": 80, "expires_in_seconds": 1}, "body.expires_in_seconds"),
        ({"port": 80, "expires_in_seconds": 10**12}, "body.expires_in_seconds"),
        ({"port": 80, "host": "x"}, "body.host"),
    ],
)
def test_what_is_wrong_with_an_order_is_named(program: Program, body: dict[str, object], location: str) -> None:
    answer = program.api.post(_path(program.machine), json=body, headers=new_key())
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == location


def test_a_port_is_a_private_preview_under_another_name(program: Program) -> None:
    ports = f"/v1/machines/{program.machine}/ports"
    made = program.api.post(ports, json={"port": program.port}, headers=new_key(), params={"wait_ms": 20_000}).json()
    assert "visibility" not in made
    assert program.api.get(f"{made['url']}x").status_code == 200
    assert httpx.get(f"{made['url']}x", trust_env=False).status_code == 401
    assert program.api.get(ports, params={"limit": 1}).json()["items"] == [made]
    assert program.api.get(f"{_path(program.machine)}/{made['port_id']}").json()["visibility"] == "private"
    assert program.api.delete(f"{ports}/{made['port_id']}").json()["status"] == "closed"
    assert program.api.get(f"{ports}/{made['port_id']}").json()["status"] == "closed"


def test_a_preview_that_is_deleted_is_served_no_longer_and_what_is_open_is_cut(program: Program) -> None:
    preview = program.preview(visibility="public")
    path = f"{_path(program.machine)}/{preview['preview_id']}"
    with httpx.stream("GET", f"{preview['url']}big", trust_env=False) as answer:
        pieces = answer.iter_raw(1_000)
        next(pieces)
        assert program.api.delete(path).json()["status"] == "closed"
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    gone = httpx.get(preview["url"], trust_env=False)
    assert (gone.status_code, gone.headers["x-dormice-preview-error"]) == (404, "not_found")
    again = program.api.delete(path)
    assert (again.status_code, again.json()["status"]) == (200, "closed")


def test_a_machine_has_a_bounded_number_of_previews(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_PREVIEWS_PER_MACHINE="2") as live, live.client() as api:
        machine = api.create_machine()
        ids = [api.post(_path(machine), json={"port": 80}, headers=new_key()).json()["preview_id"] for _ in range(2)]
        refused = api.post(_path(machine), json={"port": 80}, headers=new_key())
        assert (refused.status_code, refused.json()["error_code"]) == (409, "QUOTA_EXCEEDED")
        api.delete(f"{_path(machine)}/{ids[0]}")
        assert api.post(_path(machine), json={"port": 80}, headers=new_key()).status_code == 200


def test_who_opens_a_preview_of_a_sleeping_machine_wakes_it(live: Live, api: Api) -> None:
    machine = api.create_machine(autosleep="never")
    program = run_program(api, machine)
    preview = program.preview(visibility="public")
    asleep = api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key()).json()
    assert asleep["phase"] == "sleeping"
    answer = httpx.get(preview["url"], trust_env=False, timeout=60)
    assert (
        answer.headers["x-dormice-preview-error"] == "port_refused"
    )  # it is awake, and the program is gone with its boot
    assert api.get(f"/v1/machines/{machine}").json()["phase"] == "running"
    api.shell(
        machine,
        f'nohup python3 -c "{SERVE}" {program.port} >/dev/null 2>&1 & until (: </dev/tcp/127.0.0.1/{program.port}) 2>/dev/null; do :; done',
    )
    assert httpx.get(preview["url"], trust_env=False).status_code == 200
    api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    made = api.post(_path(machine), json={"port": 80}, headers=new_key()).json()
    assert made["status"] in ("wake_in_progress", "ready")
    ready = api.get(f"{_path(machine)}/{made['preview_id']}", params={"wait_ms": 20_000}).json()
    assert ready["status"] == "ready"
    assert api.get(f"/v1/machines/{machine}").json()["phase"] == "running"
    gone = api.delete(f"/v1/machines/{machine}", params={"wait_ms": 20_000}).json()
    assert gone["phase"] == "destroyed"
    assert httpx.get(preview["url"], trust_env=False).status_code == 404
    states = {item["status"] for item in api.get(_path(machine)).json()["items"]}
    assert states == {"closed"}


def test_previews_outlive_a_server_that_is_killed(start_live: StartLive) -> None:
    with start_live() as live, live.client() as api:
        program = run_program(api, api.create_machine(autosleep="never"))
        preview = program.preview(visibility="public")
        link = api.post(f"{_path(program.machine)}/{preview['preview_id']}/links").json()["url"]
        url = preview["url"]
        with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
            connection.sendall(f"GET {httpx.URL(url).path}silent HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            program.seen(url, "asked")
            live.kill("server")
            assert connection.recv(1) == b""
        live.wait_ready()
        wait_until(lambda: httpx.get(f"{url}x", trust_env=False).status_code == 200, 20, "it is served again")
        program.seen(url, "asker left")  # the channel of the dead server is gone
        assert httpx.get(link, trust_env=False).status_code == 303


def _dials(live: Live) -> int:
    """How many connections to ports are held in its machines."""
    found = 0
    for pid in live.processes():
        with suppress(OSError):  # it has just ended
            found += b"\0dial\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def _node_files(live: Live) -> int:
    return len([*Path(f"/proc/{live.part('node')}/fd").iterdir()])


@pytest.mark.parametrize("driver", ["process", pytest.param("container", marks=pytest.mark.machines)])
def test_a_server_that_is_killed_cuts_what_is_open_and_leaves_nothing_of_it(start_live: StartLive, driver: str) -> None:
    with start_live(driver) as live, live.client() as api:
        program = run_program(api, api.create_machine(autosleep="never"))
        url = program.preview(visibility="public")["url"]
        echo = f"{url.replace('http', 'ws', 1)}echo"
        files = _node_files(live)
        with (
            connect(echo, proxy=None) as opened,
            httpx.stream("GET", f"{url}big", trust_env=False) as answer,
            socket.create_connection(("127.0.0.1", live.port), timeout=20) as upload,
        ):
            opened.recv(20)
            pieces = answer.iter_raw(1_000)
            next(pieces)
            head = f"POST {httpx.URL(url).path}upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
            upload.sendall(f"{head}half".encode())
            program.seen(url, "/upload")
            assert _dials(live) >= 3  # and what GET /seen may use again
            live.kill("server")
            with pytest.raises(ConnectionClosed):
                opened.recv(20)
            with pytest.raises(httpx.TransportError):
                for _ in pieces:
                    pass
            assert upload.recv(1) == b""
        live.wait_ready()
        wait_until(lambda: httpx.get(f"{url}x", trust_env=False).status_code == 200, 20, "it is served again")
        with connect(echo, proxy=None) as opened:
            opened.recv(20)
            opened.send("again")
            assert opened.recv(20) == "again"
        program.seen_again(url, ["cut"], "cut")  # both the socket and the upload
        wait_until(lambda: _dials(live) == 0, 20, "nothing is left of them")
        # What it prepares for the next machine, which is made meanwhile, takes a few.
        wait_until(lambda: _node_files(live) < files + 6, 20, "the node's files are closed")


def _mirrored(url: str, size: int) -> None:
    """Send a body while it comes back."""
    where = httpx.URL(url)
    head = f"POST {where.path}mirror HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection((where.host, where.port), timeout=20) as opened, ThreadPoolExecutor() as threads:
        sending = threads.submit(opened.sendall, head.encode() + bytes(size))
        came = 0
        while data := opened.recv(1 << 20):
            came += len(data)
        sending.result(20)
    assert came > size


def test_tls_inside_the_machine(api: Api, machine: str, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x", "-keyout", "-", "-out", certificate, "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    key = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x", "-days", "2", "-keyout", "/dev/stdout"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    certificate.write_bytes(key)
    program = run_program(api, machine, str(certificate))
    url = program.preview(protocol="https", visibility="public")["url"]
    with httpx.Client(trust_env=False) as browser:
        numbers = {echoed(browser.get(f"{url}x"))[0]["connection"] for _ in range(5)}
        assert len(numbers) <= 2
        said, _ = echoed(browser.post(f"{url}x", content=bytes(1_000_000)))
        assert said["size"] == 1_000_000
        assert len(browser.get(f"{url}big").content) == 8_000_000
        _mirrored(url, 30_000_000)
        plain = program.preview(visibility="public")["url"]
        assert browser.get(f"{plain}x").status_code == 502
    api.delete(f"/v1/machines/{machine}/executions/{program.record['execution_id']}")
    api.finished(program.record)


def test_tls_where_none_is_spoken_is_a_bad_gateway(program: Program) -> None:
    url = program.preview(protocol="https", visibility="public")["url"]
    answer = httpx.get(url, trust_env=False, timeout=30)
    assert (answer.status_code, answer.headers["x-dormice-preview-error"]) == (502, "port_refused")
