"""On real machines: what a preview reaches, and that it holds its machine awake."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.live import Api, new_key
from tests.previews.conftest import PROGRAM, Program, echoed, run_program
from tests.wait import wait_until

pytestmark = pytest.mark.machines
PORT = 18_080
_LISTEN = (
    "import http.server as h, sys; "
    "h.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), h.SimpleHTTPRequestHandler).serve_forever()"
)


@contextmanager
def _host_listens(port: int) -> Iterator[list[bytes]]:
    """Something of the host's own that must not be reached."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                heard.append(connection.recv(100))
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _preview(api: Api, machine: str, port: int) -> str:
    path = f"/v1/machines/{machine}/previews"
    body = {"port": port, "visibility": "public"}
    made = api.post(path, json=body, params={"wait_ms": 20_000}, headers=new_key()).raise_for_status().json()
    assert made["status"] == "ready"
    return str(made["url"])


def test_a_preview_reaches_the_loopback_of_its_own_machine_and_nothing_else(container_api: Api) -> None:
    one, other = (container_api.create_machine(autosleep="never", memory_mib=128) for _ in range(2))
    container_api.execute(other, "python3", "-c", _LISTEN, str(PORT), wait_ms=0)
    theirs = _preview(container_api, other, PORT)
    wait_until(lambda: httpx.get(theirs, trust_env=False).status_code == 200, 20, "the other machine's own is served")
    with _host_listens(PORT) as heard:
        answer = httpx.get(_preview(container_api, one, PORT), trust_env=False)
        assert (answer.status_code, answer.headers["x-dormice-preview-error"]) == (502, "port_refused")
        assert heard == []
    for machine in (one, other):
        container_api.delete(f"/v1/machines/{machine}", params={"wait_ms": 20_000})


def test_what_goes_through_a_preview_holds_its_machine_awake_and_who_comes_later_wakes_it(container_api: Api) -> None:
    machine = container_api.create_machine(autosleep="1s", memory_mib=128)
    script = 'setsid python3 -c "$0" >/root/port 2>/dev/null & until [ -s /root/port ]; do :; done; cat /root/port'
    record = container_api.execute(machine, "/bin/bash", "-c", script, PROGRAM)  # it ends, and leaves a daemon
    url = _preview(container_api, machine, int(container_api.output(record).split()[1]))
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as connection:
        connection.sendall(f"GET {httpx.URL(url).path}silent HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert not _falls_asleep_within(container_api, machine, 3)
    assert _falls_asleep_within(container_api, machine, 20)
    answer = httpx.get(url, trust_env=False, timeout=60)
    assert answer.status_code == 502  # awake again; what listened is gone with the boot
    assert container_api.get(f"/v1/machines/{machine}").json()["phase"] == "running"
    container_api.delete(f"/v1/machines/{machine}", params={"wait_ms": 20_000})


def _falls_asleep_within(api: Api, machine: str, seconds: float) -> bool:
    try:
        wait_until(lambda: api.get(f"/v1/machines/{machine}").json()["phase"] == "sleeping", seconds, "asleep")
    except AssertionError:
        return False
    return True


def test_a_program_in_a_machine_is_served(container_api: Api, container_machine: str) -> None:
    program: Program = run_program(container_api, container_machine)
    url = program.preview(visibility="public")["url"]
    said, headers = echoed(httpx.post(f"{url}x", content=bytes(1_000_000), trust_env=False))
    assert said["size"] == 1_000_000
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert len(httpx.get(f"{url}big", trust_env=False).content) == 8_000_000
