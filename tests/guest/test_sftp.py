"""The tool `sftp` of the guest's program, packet by packet: its form, its answers, and what is no packet."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.guest_process import GUEST

OK, END, NO_SUCH_FILE, PERMISSION, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, OPENDIR, READDIR, REALPATH, STAT, RENAME, EXTENDED = (
    3, 4, 5, 6, 7, 8, 9, 11, 12, 16, 17, 18, 200,
)  # fmt: skip
STATUS, HANDLE, DATA, NAME, ATTRIBUTES, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
NONE = struct.pack(">I", 0)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(data)) + data


class Server:
    """The tool as a process."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [GUEST, "sftp"], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._id = 0

    def send(self, packet: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(struct.pack(">I", len(packet)) + packet)
        self.process.stdin.flush()

    def receive(self) -> tuple[int, bytes]:
        assert self.process.stdout
        (size,) = struct.unpack(">I", self.process.stdout.read(4))
        packet = self.process.stdout.read(size)
        return packet[0], packet[1:]

    def ask(self, kind: int, body: bytes) -> tuple[int, bytes]:
        """Return the answer's type and what follows the id, which is the request's."""
        self._id += 1
        self.send(struct.pack(">BI", kind, self._id) + body)
        answer, rest = self.receive()
        assert struct.unpack(">I", rest[:4]) == (self._id,)
        return answer, rest[4:]

    def status(self, kind: int, body: bytes) -> int:
        answer, rest = self.ask(kind, body)
        assert answer == STATUS
        return int(struct.unpack(">I", rest[:4])[0])

    def open(self, name: str, how: int) -> bytes:
        answer, rest = self.ask(OPEN, text(name) + struct.pack(">I", how) + NONE)
        assert answer == HANDLE, rest
        return rest


@pytest.fixture(name="server")
def _server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.send(struct.pack(">BI", 1, 3))
    kind, hello = server.receive()
    assert (kind, hello[:4]) == (2, struct.pack(">I", 3))
    assert b"posix-rename@openssh.com" in hello
    yield server
    out, err = server.process.communicate(timeout=20)
    assert (out, server.process.returncode) == (b"", 0), err


def test_a_file_is_written_and_read_at_any_place(server: Server, tmp_path: Path) -> None:
    handle = server.open("file", 2 | 8)
    assert server.status(WRITE, handle + struct.pack(">Q", 3) + text("def")) == OK
    assert server.status(WRITE, handle + struct.pack(">Q", 0) + text("abc")) == OK
    assert server.status(READ, handle + struct.pack(">QI", 0, 9)) == FAILURE or os.geteuid() == 0
    assert server.status(CLOSE, handle) == OK
    handle = server.open("file", 1)
    assert server.ask(READ, handle + struct.pack(">QI", 2, 3)) == (DATA, text("cde"))
    assert server.ask(READ, handle + struct.pack(">QI", 0, 0xFFFFFFFF)) == (DATA, text("abcdef"))
    assert server.status(READ, handle + struct.pack(">QI", 6, 1)) == END
    assert server.status(READ, handle + struct.pack(">QI", 1 << 63, 1)) == FAILURE
    assert server.status(CLOSE, handle) == OK
    assert server.status(CLOSE, handle) == NO_SUCH_FILE
    handle = server.open("file", 2 | 4)
    assert server.status(WRITE, handle + struct.pack(">Q", 0) + text("end")) == OK
    assert (tmp_path / "file").read_bytes() == b"abcdefend"
    assert server.status(OPEN, text("file") + struct.pack(">I", 2 | 8 | 32) + NONE) == FAILURE


def test_handles_are_bounded_and_given_back(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    handles = [server.open("file", 1) for _ in range(256)]
    assert server.status(OPEN, text("file") + struct.pack(">I", 1) + NONE) == FAILURE
    assert server.status(OPENDIR, text(".")) == FAILURE
    assert server.status(CLOSE, handles[7]) == OK
    assert server.open("file", 1) == handles[7]
    for wrong in (b"", text(""), text("abc"), text(b"\xff" * 4), text(b"\0" * 5)):
        assert server.status(CLOSE, wrong) == NO_SUCH_FILE


def test_a_large_directory_comes_in_pieces_and_whole(server: Server, tmp_path: Path) -> None:
    names = {f"{number:0250}" for number in range(350)}
    for name in names:
        (tmp_path / name).touch()
    answer, handle = server.ask(OPENDIR, text(""))
    assert answer == HANDLE
    found: list[str] = []
    while True:
        answer, rest = server.ask(READDIR, handle)
        if answer == STATUS:
            assert struct.unpack(">I", rest[:4]) == (END,)
            break
        (count,), at = struct.unpack(">I", rest[:4]), 4
        for _ in range(count):
            for part in range(2):
                (size,) = struct.unpack(">I", rest[at : at + 4])
                if part == 0:
                    found.append(rest[at + 4 : at + 4 + size].decode())
                at += 4 + size
            at += 32
        assert at == len(rest)
    assert sorted(found) == sorted(names | {".", ".."})


@pytest.mark.parametrize(
    ("asked", "whole"),
    [
        ("", "."),
        (".", "."),
        ("a/../b", "b"),
        ("new", "new"),
        ("a/new", "a/new"),
        ("a/./", "a"),
        ("l", "b"),
        ("/", "/"),
        ("/new", "/new"),
    ],
)
def test_paths_are_made_whole(server: Server, tmp_path: Path, asked: str, whole: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "l").symlink_to("b")
    answer, rest = server.ask(REALPATH, text(asked))
    assert answer == NAME
    wanted = whole if whole.startswith("/") else os.path.normpath(tmp_path.resolve() / whole)
    assert rest[4:].startswith(text(wanted))


def test_what_is_wrong_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").touch()
    assert server.status(STAT, text("nothing")) == NO_SUCH_FILE
    assert server.status(STAT, text("a\0b")) == FAILURE
    assert server.status(STAT, text("x" * 5_000)) == FAILURE
    assert server.status(REALPATH, text("no/where")) == NO_SUCH_FILE
    assert server.status(RENAME, text("file") + text("other")) == FAILURE
    assert server.status(EXTENDED, text("posix-rename@openssh.com") + text("file") + text("other")) == OK
    assert server.status(EXTENDED, text("unheard-of@example.com")) == UNSUPPORTED
    assert server.status(99, b"") == UNSUPPORTED
    assert server.status(OPEN, text("file")) == BAD_MESSAGE
    assert (
        server.status(SETSTAT, text("other") + struct.pack(">I", 0x80000000) + struct.pack(">I", 0xFFFFFFFF))
        == BAD_MESSAGE
    )
    assert server.status(READDIR, server.open("other", 1)) == NO_SUCH_FILE
    assert server.ask(LSTAT, text("other"))[0] == ATTRIBUTES


@pytest.mark.parametrize("size", [0, 4, 256 * 1024 + 1, 0xFFFFFFFF])
def test_a_length_that_no_packet_has_ends_it(tmp_path: Path, size: int) -> None:
    done = subprocess.run(
        [GUEST, "sftp"],
        cwd=tmp_path,
        input=struct.pack(">I", size) + b"\1" * 8,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (76, b"")
    assert b"no packet" in done.stderr


def test_no_bytes_crash_it(tmp_path: Path) -> None:
    """Every request is answered once, whatever it holds. Names lead nowhere, so that nothing is changed."""
    luck = random.Random(7)
    kinds = [*range(3, 21), 99, 200]
    names = [
        b"posix-rename@openssh.com",
        b"statvfs@openssh.com",
        b"fsync@openssh.com",
        b"lsetstat@openssh.com",
        b"limits@openssh.com",
    ]
    count, packets = 3_000, b""
    for number in range(count):
        pieces = [
            luck.choice(
                [
                    text(b"nowhere/x"),
                    text(luck.choice(names)),
                    text(luck.randbytes(4)),
                    luck.randbytes(luck.randrange(40)),
                ]
            )
            for _ in range(luck.randrange(4))
        ]
        packet = struct.pack(">BI", luck.choice(kinds), number) + b"".join(pieces)
        packets += struct.pack(">I", len(packet)) + packet
    done = subprocess.run([GUEST, "sftp"], cwd=tmp_path, input=packets, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen, at = 0, 0
    while at < len(done.stdout):
        size, _, number = struct.unpack(">IBI", done.stdout[at : at + 9])
        assert number == seen
        seen, at = seen + 1, at + 4 + size
    assert seen == count
