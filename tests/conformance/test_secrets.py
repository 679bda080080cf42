"""Values of variables and standard input are secrets: sealed at rest, deleted when used, told to nobody."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from tests.conformance import terminals
from tests.conftest import StartLive
from tests.live import Live, new_key, path_of
from tests.wait import wait_until


def _files_with(live: Live, secret: str) -> list[Path]:
    """Return every file of a Dormice that holds the secret, plain or as JSON, base64 or hex would write it."""
    raw = secret.encode()
    forms = (raw, raw.hex().encode(), raw[::-1])
    files = [path for path in live.directory.rglob("*") if path.is_file()]
    return [path for path in files if any(form in path.read_bytes() for form in forms)]


def test_secrets_reach_no_file_log_list_or_error(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_RUNNING_PER_MACHINE="1", DORMICE_LOG_LEVEL="debug") as live, live.client() as api:
        machine = api.create_machine()
        blocker = api.execute(machine, "sleep", "600", wait_ms=0)
        in_env, in_stdin, in_put = (f"secret-{name}-{uuid4().hex}" for name in ("env", "stdin", "put"))
        secrets = (in_env, in_stdin, in_put, live.api_key)
        check = 'test "$TOKEN" = "$1" && cat | tail -c 3'
        waiting = api.execute(
            machine, "/bin/bash", "-c", check, "-", "no", env={"TOKEN": in_env}, stdin=in_stdin, wait_ms=0
        )
        fed = api.execute(machine, "wc", "-c", stdin_open=True, wait_ms=0)
        api.put(f"{path_of(fed)}/stdin", params={"offset": 0, "eof": "true"}, content=in_put.encode())
        assert waiting["status"] == fed["status"] == "queued"
        for secret in secrets[:3]:
            assert _files_with(live, secret) == [], "sealed while it waits"
        told = [
            api.get(path_of(waiting)).text,
            api.get(f"/v1/machines/{machine}/executions").text,
            api.get(f"{path_of(waiting)}/events").text,
            api.post(
                f"/v1/machines/{machine}/executions",
                json={"command": ["true"], "env": {"TOKEN": in_env, "B": 1}, "stdin": in_stdin},
                headers=new_key(),
            ).text,
            api.get("/v1/machines").text,
        ]
        api.delete(path_of(blocker))
        assert api.output(api.finished(fed)).strip() == str(len(in_put)).encode()
        ended = api.finished(waiting)
        assert (ended["status"], ended["env_keys"]) == ("failed", ["TOKEN"])
        told.append(api.get(path_of(waiting)).text)
        assert not any(secret in text for text in told for secret in secrets)
        for secret in secrets[:3]:
            assert _files_with(live, secret) == [], "and not left behind"
        assert _files_with(live, live.api_key) == [live.data / "api-key"]
        assert (live.data / "api-key").stat().st_mode & 0o777 == 0o600
        assert live.api_key not in live.log.read_text()


def test_a_secret_of_a_cancelled_execution_is_gone(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_RUNNING_PER_MACHINE="1") as live, live.client() as api:
        machine = api.create_machine()
        blocker = api.execute(machine, "sleep", "600", wait_ms=0)
        waiting = api.execute(machine, "true", env={"TOKEN": "x" * 30}, stdin="y" * 30, wait_ms=0)
        assert api.delete(path_of(waiting)).json()["status"] == "cancelled"
        api.delete(path_of(blocker))
        wait_until(lambda: api.get(path_of(blocker)).json()["status"] == "cancelled", 10, "over")
        live.stop()
        database = (live.data / "server" / "dormice.sqlite3").read_bytes()
        assert b"x" * 30 not in database
        assert b"y" * 30 not in database


def test_what_is_typed_into_a_terminal_is_a_secret(start_live: StartLive) -> None:
    with start_live(DORMICE_LOG_LEVEL="debug", DORMICE_TERMINALS_BY_ID="1") as live, live.client() as api:
        machine = api.create_machine()
        in_env, typed, unread = (f"secret-{name}-{uuid4().hex}" for name in ("env", "typed", "unread"))
        script = 'stty raw -echo; test -n "$TOKEN"; echo ready; head -c 80 > /dev/null; echo read; sleep 600'
        record = terminals.create(api, machine, "sh", "-c", script, env={"TOKEN": in_env})
        with terminals.window(record["stream_url"]) as one:
            one.wait_for(b"ready")
            one.type(typed.ljust(80))
            one.wait_for(b"read")
            for _ in range(3_000):
                one.type(unread)  # more than the terminal holds: it waits in the store
            one.say(type="input", data="*" + typed)
            while not one.errors:
                one.take()
            for secret in (in_env, typed, unread):
                assert _files_with(live, secret) == []
            told = [
                api.get(terminals.path(machine)).text,
                api.get(terminals.path(machine, record["terminal_id"])).text,
                str(one.errors),
            ]
            assert not any(secret in text for text in told for secret in (in_env, typed, unread))
            api.delete(terminals.path(machine, record["terminal_id"]))
            assert one.end() == 1000
        for secret in (in_env, typed, unread):
            assert _files_with(live, secret) == [], "and not left behind"
        log = live.log.read_text()
        token = record["stream_url"].partition("token=")[2]
        assert record["terminal_id"][:13] in log
        for secret in (token, token.rpartition(".")[2], record["terminal_id"], in_env, typed, unread):
            assert secret not in log
