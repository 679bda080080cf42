"""SSH sessions over HTTP: what is made, shown, refused and ended."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import StartLive
from tests.live import LONGEST_WAIT_MS, Api, Live, new_key
from tests.ssh.conftest import ON
from tests.ssh.login import KEYS, Login, log_in, new_public_key
from tests.wait import wait_until


def _post(api: Api, machine: str, public_key: str, **parameters: Any) -> Any:
    return api.post(
        f"/v1/machines/{machine}/ssh", json={"public_key": public_key}, params=parameters, headers=new_key()
    )


@pytest.mark.parametrize("kind", KEYS)
def test_a_session_of_a_machine_that_runs_is_ready_at_once(api: Api, machine: str, tmp_path: Path, kind: str) -> None:
    made = _post(api, machine, new_public_key(tmp_path, kind))
    session = made.json()
    assert (made.status_code, session["status"], session["machine_id"]) == (200, "ready", machine)
    assert session["created_at"] <= session["ready_at"] < session["expires_at"]
    found = session["connection"]
    assert found["ssh_username"] == session["session_id"]
    trust = found["host_trust"]
    assert (trust["kind"], trust["host_pattern"]) == ("cert_authority", f"[{found['endpoint']}]:{found['port']}")
    for line in (found["user_certificate"], trust["public_key"], trust["host_pattern"]):
        assert line.strip() == line
        assert "\n" not in line
    (tmp_path / "cert.pub").write_text(found["user_certificate"])
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", tmp_path / "cert.pub"], capture_output=True, text=True, check=True
    ).stdout
    words = shown.split()
    assert f'"{session["session_id"]}"' in words, "the key id"
    assert session["session_id"] in words, "the principal"
    after_options = shown.partition("Critical Options: ")[2].split()
    assert after_options == ["(none)", "Extensions:", "permit-port-forwarding", "permit-pty"]


def test_sessions_are_listed_newest_first_and_deleted_for_good(api: Api, tmp_path: Path) -> None:
    machine = api.create_machine(autosleep="never")
    public_key = new_public_key(tmp_path)
    ids = [_post(api, machine, public_key).json()["session_id"] for _ in range(3)]
    path = f"/v1/machines/{machine}/ssh"
    first = api.get(path, params={"limit": 2}).json()
    rest = api.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["session_id"] for one in (*first["items"], *rest["items"])] == ids[::-1]
    assert "next_cursor" not in rest
    for _ in range(2):
        deleted = api.delete(f"{path}/{ids[0]}")
        assert (deleted.status_code, deleted.json()["status"]) == (200, "closed")
        assert "connection" not in deleted.json()
    assert api.get(f"{path}/{ids[0]}").json() == deleted.json()
    assert api.get(f"{path}/{ids[1]}").json()["status"] == "ready"


def test_the_same_request_again_gives_the_same_session(api: Api, machine: str, tmp_path: Path) -> None:
    key, body = new_key(), {"public_key": new_public_key(tmp_path)}
    path = f"/v1/machines/{machine}/ssh"
    first, again = (api.post(path, json=body, headers=key) for _ in range(2))
    assert first.json() == again.json()
    (tmp_path / "key").unlink()
    other = api.post(path, json={"public_key": new_public_key(tmp_path)}, headers=key)
    assert (other.status_code, other.json()["error_code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert api.post(path, json=body).status_code == 422


@pytest.mark.parametrize(
    ("public_key", "message"),
    [
        ("", "one line"),
        ("ssh-ed25519 AAAA\nssh-ed25519 AAAA", "one line"),
        ("hello", "no key that OpenSSH has written"),
        ("ssh-ed25519 AAAA", "no key that OpenSSH has written"),
        ("ssh-ed25519 " + "A" * 9_000, "at most 8192 bytes"),
        ("-----BEGIN PUBLIC KEY-----", "no key that OpenSSH has written"),
        ("ssh-ed25519 \x00", "one line"),
        ("ssh-ed25519 ÄÖÜ", "no key that OpenSSH has written"),
    ],
)
def test_what_is_no_public_key_is_refused(api: Api, machine: str, public_key: str, message: str) -> None:
    refused = _post(api, machine, public_key)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["location"] == "body.public_key"
    assert message in refused.json()["errors"][0]["message"]


@pytest.mark.parametrize("body", [{}, {"public_key": 1}, {"public_key": None}, {"public_key": "x", "more": 1}])
def test_a_body_of_another_form_is_refused(api: Api, machine: str, body: dict[str, Any]) -> None:
    assert api.post(f"/v1/machines/{machine}/ssh", json=body, headers=new_key()).status_code == 422


def test_a_short_rsa_key_and_a_private_one_are_refused(api: Api, machine: str, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", tmp_path / "short"], check=True, timeout=60
    )
    refused = _post(api, machine, (tmp_path / "short.pub").read_text())
    assert "at least 2048 bits" in refused.json()["errors"][0]["message"]
    new_public_key(tmp_path)
    refused = _post(api, machine, (tmp_path / "key").read_text())
    assert refused.status_code == 422
    assert "PRIVATE" not in refused.text


def test_unknown_ids_and_other_organizations_find_nothing(
    api: Api, ssh_live: Live, machine: str, login: Login, tmp_path: Path
) -> None:
    nowhere = "dm-019e39e7-3d1b-7a85-a772-475990a3bda1"
    assert _post(api, nowhere, new_public_key(tmp_path)).status_code == 404
    assert api.get(f"/v1/machines/{nowhere}/ssh").status_code == 404
    assert api.get(f"/v1/machines/{machine}/ssh/ssh-{uuid4()}").status_code == 404
    assert api.delete(f"/v1/machines/{machine}/ssh/x").status_code == 404
    made = api.post("/v1/keys", json={"organization": f"o{uuid4().hex[:8]}"}, headers=new_key()).json()
    with ssh_live.client(headers={"Authorization": f"Bearer {made['key']}"}) as stranger:
        assert stranger.get(login.path).status_code == 404
        assert stranger.delete(login.path).status_code == 404
        assert stranger.get(f"/v1/machines/{machine}/ssh").status_code == 404
    assert api.get(login.path).json()["status"] == "ready"


def test_a_sleeping_machine_is_woken(api: Api, tmp_path: Path) -> None:
    machine = api.create_machine()
    api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": LONGEST_WAIT_MS}, headers=new_key())
    session = _post(api, machine, new_public_key(tmp_path)).json()
    assert session["status"] in {"wake_in_progress", "ready"}
    if session["status"] == "wake_in_progress":
        assert 1 <= session["retry_after_ms"] <= 60_000
        assert "connection" not in session
    path = f"/v1/machines/{machine}/ssh/{session['session_id']}"
    ready = api.get(path, params={"wait_ms": LONGEST_WAIT_MS}).json()
    assert ready["status"] == "ready"
    assert api.get(f"/v1/machines/{machine}").json()["phase"] == "running"


def test_the_end_of_a_machine_closes_its_sessions(api: Api, tmp_path: Path) -> None:
    machine = api.create_machine()
    login = log_in(api, machine, tmp_path)
    api.delete(f"/v1/machines/{machine}", params={"wait_ms": LONGEST_WAIT_MS})
    assert api.get(login.path).json()["status"] == "closed"
    assert login.run("true").returncode == 255


def test_the_end_of_a_key_ends_its_sessions_and_hangs_up(
    ssh_live: Live, api: Api, machine: str, login: Login, tmp_path: Path
) -> None:
    made = api.post("/v1/keys", json={"name": "guest"}).json()
    with ssh_live.client(headers={"Authorization": f"Bearer {made['key']}"}) as guest:
        theirs = log_in(guest, machine, tmp_path)
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(theirs.command("cat"), stdin=pipe, stdout=pipe, stderr=pipe) as cut,
        subprocess.Popen(login.command("cat"), stdin=pipe, stdout=pipe) as stays,
    ):
        for one in (cut, stays):
            assert one.stdin
            assert one.stdout
            one.stdin.write(b"here\n")
            one.stdin.flush()
            assert one.stdout.readline() == b"here\n"
        api.delete(f"/v1/keys/{made['key_id']}").raise_for_status()
        assert cut.wait(10) == 255
        assert cut.stderr
        assert b"the API key was revoked" in cut.stderr.read()
        assert stays.communicate(b"still\n", timeout=10)[0] == b"still\n"
    assert theirs.run("true").returncode == 255
    assert api.get(theirs.path).json()["status"] == "closed"
    assert api.get(login.path).json()["status"] == "ready"


def test_a_session_that_is_over_lets_nobody_in_and_has_no_place(start_live: StartLive, tmp_path: Path) -> None:
    limits = {"DORMICE_LIMIT_SSH_SESSION_SECONDS": "3", "DORMICE_LIMIT_SSH_SESSIONS_PER_MACHINE": "1"}
    with start_live(**ON, **limits) as live, live.client() as api:
        machine = api.create_machine()
        login = log_in(api, machine, tmp_path)
        refused = _post(api, machine, (tmp_path / "key.pub").read_text())
        assert (refused.status_code, refused.json()["error_code"]) == (429, "RATE_LIMITED")
        with subprocess.Popen(login.command("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as inside:
            assert inside.stdin
            assert inside.stdout
            inside.stdin.write(b"still here\n")
            inside.stdin.flush()
            assert inside.stdout.readline() == b"still here\n"
            wait_until(lambda: api.get(login.path).json()["status"] == "expired", 10, "expired")
            assert login.run("true").returncode == 255
            inside.stdin.write(b"who is in may stay\n")
            inside.stdin.close()
            assert inside.stdout.read() == b"who is in may stay\n"
            assert inside.wait(10) == 0
        assert _post(api, machine, (tmp_path / "key.pub").read_text()).status_code == 200


def test_where_ssh_is_off_no_session_is_made(start_live: StartLive, tmp_path: Path) -> None:
    with start_live() as live, live.client() as api:
        machine = api.create_machine()
        refused = _post(api, machine, new_public_key(tmp_path))
        assert (refused.status_code, refused.json()["error_code"]) == (409, "INVALID_STATE")
        assert "ssh_listen" in refused.json()["message"]
        assert api.get(f"/v1/machines/{machine}/ssh").json() == {"items": []}
        assert not (live.data / "server" / "ssh-user-authority").exists()


def test_sessions_outlive_the_server_and_its_keys_are_secret(start_live: StartLive, tmp_path: Path) -> None:
    with start_live(**ON) as live, live.client() as api:
        login = log_in(api, api.create_machine(), tmp_path)
        live.kill("server")
        live.wait_ready()
        again = api.get(login.path).json()
        assert again["status"] == "ready"
        moved = Login(tmp_path, again)  # port 0 took another port
        trust = again["connection"]["host_trust"]
        (tmp_path / "known_hosts").write_text(f"@cert-authority {trust['host_pattern']} {trust['public_key']}\n")
        assert moved.run("echo", "back").stdout == b"back\n"
        for name in ("ssh-user-authority", "ssh-host-authority"):
            assert (live.data / "server" / name).stat().st_mode & 0o777 == 0o600
