"""`dormice machines artifacts` as a process, against a real HTTP server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Dormice
from tests.client.fake_server import Answer, FakeServer

COMMAND = ("machines", "artifacts")
ONE = ("--machine-id", "dm-1", "--artifact-id", "art-1")
PATH = "/v1/machines/dm-1/artifacts/art-1"


def record(name: str = "out/report.json") -> dict[str, object]:
    return {
        "artifact_id": "art-1",
        "machine_id": "dm-1",
        "execution_id": "exec-1",
        "name": name,
        "size_bytes": 4,
        "created_at": "2026-06-01T10:00:00Z",
        "download_url": "http://127.0.0.1/v1/artifacts/art-1/content?token=t",
    }


def plan(server: FakeServer, name: str = "out/report.json") -> None:
    """Have the next download go well."""
    server.planned += [Answer(200, body=record(name)), Answer(200, raw=b"\x00\xff\r\n")]


@pytest.fixture(name="here", autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are run."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def test_they_are_listed_page_by_page(dormice: Dormice, server: FakeServer) -> None:
    server.planned += [
        Answer(200, body={"items": [record()], "next_cursor": "7"}),
        Answer(200, body={"items": [record("b")]}),
    ]
    rows = dormice(*COMMAND, "list", "--machine-id", "dm-1", "--limit", "1").stdout.decode().splitlines()
    assert rows[0].split() == ["ARTIFACT", "ID", "EXECUTION", "ID", "SIZE", "EXPIRES", "NAME"]
    assert [row.split() for row in rows[1:]] == [
        ["art-1", "exec-1", "4", "-", "out/report.json"],
        ["art-1", "exec-1", "4", "-", "b"],
    ]
    assert [request.query for request in server.sent("GET")] == [{"limit": "1"}, {"limit": "1", "cursor": "7"}]
    assert server.requests[0].path == "/v1/machines/dm-1/artifacts"


def test_one_is_shown_and_deleted(dormice: Dormice, server: FakeServer) -> None:
    server.planned += [Answer(200, body=record())] * 3
    for words in ("retrieve", "get", "delete"):
        assert json.loads(dormice(*COMMAND, words, *ONE, "--json").stdout) == record()
    assert [(request.method, request.path) for request in server.requests] == [
        ("GET", PATH),
        ("GET", PATH),
        ("DELETE", PATH),
    ]


def test_a_name_cannot_command_the_terminal(dormice: Dormice, server: FakeServer) -> None:
    name = "a\x1b[2J\nb"
    server.planned += [Answer(200, body={"items": [record(name)]}), Answer(200, body=record(name))]
    shown = dormice(*COMMAND, "list", "--machine-id", "dm-1").stdout + dormice(*COMMAND, "get", *ONE).stdout
    assert b"\x1b" not in shown
    assert b"a?[2J b" in shown
    assert rb"a\u001b[2J\nb" in shown


def test_it_is_written_under_its_name_but_over_nothing(dormice: Dormice, server: FakeServer, here: Path) -> None:
    plan(server)
    done = dormice(*COMMAND, "download", *ONE)
    assert (done.returncode, done.stdout) == (0, b"report.json\n")
    assert server.requests[-1].path == f"{PATH}/content"
    assert (here / "report.json").read_bytes() == b"\x00\xff\r\n"
    (here / "report.json").write_bytes(b"mine")
    server.planned.append(Answer(200, body=record()))
    done = dormice(*COMMAND, "download", *ONE)
    assert (done.returncode, b"--output" in done.stderr) == (1, True)
    assert (here / "report.json").read_bytes() == b"mine"


def test_it_is_written_where_one_says(dormice: Dormice, server: FakeServer, here: Path) -> None:
    for output, path in (("mine", "mine"), (".", "report.json"), ("mine", "mine")):
        plan(server)
        assert dormice(*COMMAND, "download", *ONE, "--output", output).stdout.decode() == f"{path}\n"
        assert (here / path).read_bytes() == b"\x00\xff\r\n"
    plan(server)
    assert dormice(*COMMAND, "download", *ONE, "-o", "-").stdout == b"\x00\xff\r\n"
    server.planned.append(Answer(200, body=record()))
    server.planned.append(Answer(200, raw=b"1"))
    done = dormice(*COMMAND, "download", *ONE, "-o", "none/x")
    assert (done.returncode, done.stderr.count(b"\n"), b"No such file" in done.stderr) == (1, 1, True)


@pytest.mark.parametrize(
    ("name", "written"),
    [("/etc/../..", "art-1"), ("out/", "art-1"), ("..", "art-1"), ("a\x00\nb", "a??b"), ("/root/.profile", ".profile")],
)
def test_its_name_leads_nowhere_else(dormice: Dormice, server: FakeServer, here: Path, name: str, written: str) -> None:
    plan(server, name)
    assert dormice(*COMMAND, "download", *ONE).returncode == 0
    assert [path.name for path in here.iterdir()] == [written]


def test_what_does_not_come_whole_is_not_there(dormice: Dormice, server: FakeServer, here: Path) -> None:
    server.planned += [Answer(200, body=record()), Answer(404, body={"detail": "no such artifact"})]
    assert dormice(*COMMAND, "download", *ONE).returncode == 1
    server.planned += [
        Answer(200, body=record()),
        Answer(200, raw=b"1", headers={"content-length": "4", "connection": "close"}),
    ]
    assert dormice(*COMMAND, "download", *ONE).returncode == 3
    assert not [*here.iterdir()]
