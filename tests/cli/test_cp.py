"""`dormice cp` of files that change, have odd names, or are links."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dormice.cli.files import remote
from dormice.cli.transfers import pieces_of, save
from tests.cli.conftest import Dormice
from tests.client.fake_server import Answer, FakeServer

ENTRY = {
    "name": "x",
    "type": "file",
    "size": 1,
    "mode": "0644",
    "uid": 0,
    "gid": 0,
    "modified_at": "2026-06-01T10:00:00Z",
}


def test_a_file_that_grows_is_sent_as_it_was_announced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"123456")
    with path.open("rb") as file:
        assert b"".join(pieces_of(file, 4)) == b"1234"
    with path.open("rb") as file, pytest.raises(OSError, match="shorter") as raised:
        list(pieces_of(file, 7))
    assert raised.value.filename == str(path)
    with path.open("rb") as file:
        assert b"".join(pieces_of(file)) == b"123456"


def test_a_pipe_is_read_to_its_end(dormice: Dormice, server: FakeServer, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=lambda: pipe.write_bytes(b"content"))
    writing.start()
    server.planned += [Answer(404, body={"detail": "no such file"}), Answer(200, body=ENTRY)]
    done = dormice("cp", str(pipe), "dm-1:/srv/x")
    writing.join()
    assert done.returncode == 0, done.stderr
    (sent,) = server.sent("PUT")
    assert (sent.headers["transfer-encoding"], sent.content) == ("chunked", b"content")


@pytest.mark.parametrize("name", ["\u6f22" * 83 + "xx", "x" * 255], ids=["characters", "bytes"])
def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, [b"con", b"tent"])
    assert (tmp_path / name).read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/file")
    save(tmp_path / "link", [b"new"])
    assert (tmp_path / "link").readlink() == Path("there/file")
    assert (tmp_path / "there/file").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]


def test_a_pipe_is_written_into_and_stays_one() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as out:
        with os.fdopen(writing, "wb"):
            save(Path(f"/proc/self/fd/{writing}"), [b"con", b"tent"])
        assert out.read() == b"content"


def test_what_cannot_be_written_is_called_as_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        save(Path("missing/a"), [b"content"])
    assert raised.value.filename == "missing/a"


def test_several_go_into_a_directory(dormice: Dormice, server: FakeServer, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    sources = [str(tmp_path / name) for name in "ab"]
    server.planned += [Answer(200, body={**ENTRY, "type": "directory"}), Answer(200, body=ENTRY)] * 2
    done = dormice("cp", "-r", *sources, "dm-1:~/there")
    assert done.returncode == 0, done.stderr
    assert [(put.query["path"], put.content) for put in server.sent("PUT")] == [("there/a", b"a"), ("there/b", b"b")]
    assert dormice("cp", *sources, "-", "dm-1:x").returncode == 2
    done = dormice("cp", "dm-1:a", "dm-1:b", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (1, f"dormice cp: {tmp_path}/none: Not a directory\n".encode())


@pytest.mark.parametrize(
    ("text", "path"), [("dm-1:~/a/b", "a/b"), ("dm-1:~", "."), ("dm-1:~/", "."), ("dm-1:~a", "~a"), ("dm-1:", ".")]
)
def test_a_tilde_is_the_home_of_the_machine(text: str, path: str) -> None:
    assert remote(text) == ("dm-1", path)
