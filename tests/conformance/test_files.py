"""Files inside real machines: what is written is there as a whole or not at all, and nothing leads out."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.wait import wait_until

pytestmark = pytest.mark.machines
PIECE = bytes(range(256)) * 4096
HOSTILE = [b"new\nline", b"quote\"'`$(id)", b"\xff\xfe not UTF-8", b"  spaces ", b"-rf", b"%00", "ümläut".encode()]


class Place:
    """The files of one machine, below a directory of the test's own."""

    def __init__(self, api: Api, machine_id: str, directory: str) -> None:
        self.api = api
        self.machine_id = machine_id
        self.directory = directory
        self.url = f"/v1/machines/{machine_id}/files"

    def query(self, path: str | bytes, **more: str) -> str:
        """Return the query that names a path, which is below the directory if it is relative."""
        raw = path if isinstance(path, bytes) else path.encode()
        whole = raw if raw.startswith(b"/") else self.directory.encode() + b"/" + raw
        return "&".join([f"path={quote(whole)}", *(f"{name}={quote(value)}" for name, value in more.items())])

    def ask(
        self, method: str, path: str | bytes, tail: str = "", content: object = None, **more: str
    ) -> httpx.Response:
        return self.api.request(method, f"{self.url}{tail}?{self.query(path, **more)}", content=content)  # type: ignore[arg-type]

    def write(self, path: str | bytes, content: object, **more: str) -> httpx.Response:
        return self.ask("PUT", path, "", content, **more)

    def read(self, path: str | bytes) -> bytes:
        return self.ask("GET", path).raise_for_status().content

    def unpack(self, path: str, archive: bytes) -> httpx.Response:
        return self.ask("PUT", path, "/archive", archive)

    def shell(self, script: str) -> str:
        record = self.api.shell(self.machine_id, f"cd {self.directory} && {script}")
        assert record["status"] == "succeeded", (record, self.api.output(record, "stderr"))
        return self.api.output(record).decode("utf-8", "surrogateescape")


@pytest.fixture(name="place")
def _place(container_api: Api, container_machine: str) -> Place:
    place = Place(container_api, container_machine, f"/srv/{uuid4()}")
    place.ask("POST", "", "/mkdir", parents="true").raise_for_status()
    return place


def _refused(answer: httpx.Response, status: int, text: str) -> None:
    assert answer.status_code == status, answer.text
    assert text in answer.text


def test_a_file_is_written_read_looked_at_and_deleted(place: Place) -> None:
    made = place.write("a/b/data", PIECE, parents="true", mode="640").raise_for_status().json()
    assert (made["name"], made["type"], made["size"], made["mode"]) == ("data", "file", len(PIECE), "0640")
    assert place.read("a/b/data") == PIECE
    assert place.ask("GET", "a/b/data", "/stat").json() == made
    assert place.shell("stat -c '%a %u:%g %s' a/b/data") == f"640 0:0 {len(PIECE)}\n"
    assert place.write("a/b/data", b"shorter").json()["mode"] == "0640"
    assert place.read("a/b/data") == b"shorter"
    assert place.ask("DELETE", "a/b/data").json()["size"] == 7
    _refused(place.ask("GET", "a/b/data"), 404, "no such file")
    _refused(place.ask("DELETE", "a"), 409, "ENOTEMPTY")
    assert place.ask("DELETE", "a", recursive="true").json()["type"] == "directory"
    assert place.shell("ls -A") == ""


def test_ranges_are_exact_and_follow_the_file(place: Place) -> None:
    place.write("data", PIECE)
    url = f"{place.url}?{place.query('data')}"
    for asked, start, end in (
        ("bytes=5-9", 5, 10),
        ("bytes=-3", len(PIECE) - 3, len(PIECE)),
        ("bytes=7-", 7, len(PIECE)),
    ):
        part = place.api.get(url, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, PIECE[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(PIECE)}"
    _refused(place.api.get(url, headers={"Range": f"bytes={len(PIECE)}-"}), 416, "holds no byte")
    tag = place.api.get(url).headers["etag"]
    assert place.api.get(url, headers={"Range": "bytes=0-1", "If-Range": tag}).status_code == 206
    place.write("data", b"another")
    assert place.api.get(url, headers={"Range": "bytes=0-1", "If-Range": tag}).content == b"another"


@pytest.mark.parametrize("name", HOSTILE)
def test_names_may_hold_any_byte(place: Place, name: bytes) -> None:
    place.write(name, b"content").raise_for_status()
    assert place.read(name) == b"content"
    record = next(
        item
        for item in place.ask("GET", "", "/list").json()["items"]
        if (b64decode(item["name_base64"]) if "name_base64" in item else item["name"].encode()) == name
    )
    assert record["type"] == "file"
    moved = place.url + "/rename?" + place.query(name) + "&to=" + quote(place.directory.encode() + b"/moved " + name)
    assert place.api.post(moved).status_code == 200
    place.ask("DELETE", b"moved " + name).raise_for_status()
    assert place.shell("ls -A") == ""


def test_a_path_that_cannot_be_one_is_told(place: Place) -> None:
    _refused(place.api.get(place.url), 422, "path is required")
    _refused(place.ask("GET", b"nul\0byte"), 422, "NUL")
    _refused(place.ask("GET", "x" * 5000), 422, "path_bytes")
    _refused(place.ask("GET", "x" * 300), 422, "too long")
    _refused(place.write("data", b"", mode="999"), 422, "octal")
    _refused(place.ask("GET", "", "/list", cursor="zz"), 422, "cursor")
    _refused(place.ask("GET", ""), 409, "is a directory")
    _refused(place.write("", b"x"), 409, "is a directory")
    _refused(place.write("no/such/place", b"x"), 404, "no such file")
    place.write("file", b"")
    _refused(place.ask("GET", "file/below", "/stat"), 409, "not a directory")
    _refused(place.ask("GET", "file", "/list"), 409, "not a directory")
    _refused(place.ask("POST", "file", "/mkdir"), 409, "EEXIST")
    place.write("other", b"")
    _refused(place.ask("POST", "file", "/rename", to=f"{place.directory}/other"), 409, "EEXIST")
    place.ask("POST", "file", "/rename", to=f"{place.directory}/other", replace="true").raise_for_status()


def test_what_is_no_regular_file_is_neither_waited_for_nor_written(place: Place) -> None:
    place.shell("mkfifo pipe")
    for path in ("pipe", "/dev/null"):
        _refused(place.ask("GET", path), 409, "no regular file")
        _refused(place.write(path, b"x"), 409, "no regular file")
    assert place.ask("GET", "pipe", "/stat").json()["type"] == "other"


def test_a_link_leads_to_the_machines_own_files_and_never_to_the_hosts(place: Place) -> None:
    place.shell(
        "ln -s /etc/shadow shadow; ln -s ../../../../../../../../../etc/shadow up; ln -s /proc/1/root/etc/shadow proc"
    )
    own = place.shell("cat /etc/shadow").encode()
    host = Path("/etc/shadow").read_bytes()
    assert own != host
    assert place.read("shadow") == place.read("up") == own
    assert host not in place.ask("GET", "proc").content
    entry = place.ask("GET", "shadow", "/stat").json()
    assert (entry["type"], entry["target"]) == ("symlink", "/etc/shadow")
    marker = Path("/etc/dormice-test-marker")
    place.shell(f"ln -s {marker} written; touch {marker}")
    place.write("written", b"inside").raise_for_status()
    assert not marker.exists()
    assert place.shell(f"cat {marker}; rm {marker}; test -L written && echo link") == "insidelink\n"


def test_ten_thousand_entries_are_listed_in_pages_and_come_in_one_archive(place: Place) -> None:
    place.shell("mkdir many && cd many && seq -f 'entry-%05g' 0 9999 | xargs touch")
    names: list[str] = []
    cursor = ""
    while True:
        page = place.ask("GET", "many", "/list", limit="999", cursor=cursor).raise_for_status().json()
        names += [item["name"] for item in page["items"]]
        if (cursor := page.get("next_cursor", "")) == "":
            break
    assert names == [f"entry-{number:05}" for number in range(10_000)]
    archive = place.ask("GET", "many", "/archive").raise_for_status().content
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert opened.getnames() == names
    place.unpack("again", archive).raise_for_status()
    assert place.shell("ls again | wc -l") == "10000\n"


def test_a_tree_comes_back_as_it_was(place: Place) -> None:
    place.shell(
        "mkdir -p tree/deep; cd tree; long=$(printf 'n%.0s' $(seq 200)); mkdir -p $long/$long; echo x > $long/$long/$long;"
        "ln -s $long/$long to-long; ln -s /nowhere dangling; mkfifo pipe; printf b > $'bad\\xff'; head -c 100000 /dev/urandom > random;"
        "chmod 700 deep; touch -d '2001-02-03 04:05:06' random; mkdir $'\\xc3\\xa4'$long; echo y > $'\\xc3\\xa4'$long/$'\\xff'$long"
    )
    archive = place.ask("GET", "tree", "/archive").raise_for_status().content
    place.unpack("copy", archive).raise_for_status()
    place.shell("rm tree/pipe; diff -r --no-dereference tree copy")
    look = "find . -printf '%P %m %l %y\\n' | sort"
    assert place.shell(f"cd tree; {look}") == place.shell(f"cd copy; {look}")
    assert place.shell("stat -c %Y copy/random") == place.shell("stat -c %Y tree/random")
    _refused(place.ask("GET", "tree/random", "/archive"), 409, "not a directory")


def _tar(
    *members: tuple[str, bytes | None, str],
    form: int = tarfile.PAX_FORMAT,
    pax: dict[str, str] | None = None,
    mtime: int = 0,
) -> bytes:
    """Members are name, type and what it says: the content of a file, the target of a link."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind or tarfile.REGTYPE
            info.pax_headers = dict(pax or {})
            data = text.encode() if kind is None else b""
            info.size, info.linkname = len(data), "" if kind is None else text
            info.mode, info.mtime = 0o6755, mtime
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (_tar(("/srv/absolute", None, "x")), "absolute"),
        (_tar(("../up", None, "x")), "'..'"),
        (_tar(("a/../../up", None, "x")), "'..'"),
        (_tar(("out", tarfile.SYMTYPE, "/srv"), ("out/through", None, "x")), "leads out"),
        (_tar(("out", tarfile.SYMTYPE, "../.."), ("out/through", None, "x")), "leads out"),
        (_tar(("out", tarfile.SYMTYPE, "/srv"), ("out/through", tarfile.DIRTYPE, "")), "leads out"),
        (_tar(("out", tarfile.SYMTYPE, "/srv"), ("out/through", tarfile.SYMTYPE, "x")), "leads out"),
        (_tar(("hard", tarfile.LNKTYPE, "/etc/shadow")), "absolute"),
        (_tar(("hard", tarfile.LNKTYPE, "../../etc/shadow")), "'..'"),
        (_tar(("null", tarfile.CHRTYPE, "")), "device"),
        (_tar(("disk", tarfile.BLKTYPE, "")), "device"),
        (_tar(("pipe", tarfile.FIFOTYPE, "")), "pipe"),
        (_tar(("data", None, "x" * 2000))[:1500], "in the midst"),
        (b"", "in the midst"),
        (b"\x1f\x8b" + PIECE[:2000], "no tar archive"),
        (_tar(("sparse", None, "x"), pax={"GNU.sparse.major": "1"}), "sparse"),
    ],
)
def test_an_archive_is_not_believed(place: Place, archive: bytes, why: str) -> None:
    place.shell("rm -rf ../through ../absolute ../up into")
    _refused(place.unpack("into", archive), 422, why)
    assert (
        place.shell("ls .. | grep -x -e through -e absolute -e up; find . -type f -o -type b -o -type c -o -type p")
        == ""
    )


def test_archives_of_others_are_taken(place: Place) -> None:
    long = "/".join(["directory" * 9] * 5) + "/file"
    for number, form in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        members = [
            ("./", tarfile.DIRTYPE, ""),
            ("./made/later/file", None, "one"),
            ("usr/lib", tarfile.DIRTYPE, ""),
            ("lib", tarfile.SYMTYPE, "usr/lib"),
            ("lib/through", None, "two"),
            ("hard", tarfile.LNKTYPE, "made/later/file"),
            *([(long, None, "long"), ("to-long", tarfile.SYMTYPE, long)] if form != tarfile.USTAR_FORMAT else []),
        ]
        place.unpack(f"into-{number}", _tar(*members, form=form)).raise_for_status()
        assert (
            place.shell(f"cd into-{number}; cat hard lib/through usr/lib/through; stat -c '%a %h' hard")
            == "onetwotwo755 2\n"
        )
        if form != tarfile.USTAR_FORMAT:
            assert place.shell(f"cat into-{number}/to-long") == "long"
    _refused(place.unpack("into-0", _tar(("made", None, "a file for a directory"))), 409, "EISDIR")
    _refused(place.unpack("into-0", _tar(("hard", tarfile.DIRTYPE, ""))), 409, "EEXIST")


def test_a_time_before_1970_is_kept(place: Place) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        archive = _tar(("old", None, "x"), ("link", tarfile.SYMTYPE, "old"), form=form, mtime=-86_400)
        place.unpack("into", archive).raise_for_status()
        assert place.shell("cd into; stat -c %Y old link; rm old") == "-86400\n-86400\n"


def test_a_link_that_cannot_be_made_takes_nothing_away(place: Place) -> None:
    place.shell("mkdir into; echo kept > into/a")
    itself = _tar(("a", tarfile.LNKTYPE, "a"), ("./a", tarfile.LNKTYPE, "a"), ("b", tarfile.LNKTYPE, "a"))
    place.unpack("into", itself).raise_for_status()
    assert place.shell("cd into; cat a; ls -A") == "kept\na\nb\n"
    _refused(place.unpack("into", _tar(("a", tarfile.LNKTYPE, "missing"))), 404, "no such file")
    assert place.shell("cd into; cat a; ls -A") == "kept\na\nb\n"
    place.unpack("into", _tar(("a", tarfile.SYMTYPE, "b"), ("a", tarfile.SYMTYPE, "b"))).raise_for_status()
    assert place.shell("cd into; readlink a; ls -A") == "b\na\nb\n"


def test_a_file_of_a_gibibyte_is_read_in_full_and_in_part(place: Place) -> None:
    place.shell("truncate -s 1G sparse; printf end >> sparse")
    size, tail = 0, b""
    with place.api.stream("GET", f"{place.url}?{place.query('sparse')}") as answer:
        for piece in answer.iter_raw(1 << 20):
            size, tail = size + len(piece), (tail + piece)[-4:]
    assert (size, tail) == ((1 << 30) + 3, b"\0end")
    part = place.api.get(f"{place.url}?{place.query('sparse')}", headers={"Range": f"bytes={(1 << 30) - 1}-"})
    assert part.content == b"\0end"
    place.shell("rm sparse")


def test_what_is_larger_than_a_request_may_be_is_taken_whole(place: Place) -> None:
    pieces = 32
    place.write("large", (PIECE for _ in range(pieces))).raise_for_status()
    assert place.shell("sha256sum < large").split()[0] == hashlib.sha256(PIECE * pieces).hexdigest()


@pytest.mark.parametrize("announced", [True, False])
def test_a_full_disk_is_told_and_leaves_nothing(place: Place, *, announced: bool) -> None:
    pieces = 1200
    content: object = _Sized(pieces) if announced else (PIECE for _ in range(pieces))
    headers = {"Content-Length": str(pieces * len(PIECE))} if announced else {}
    url = f"{place.url}?{place.query('much')}"
    answer = place.api.put(url, content=content, headers=headers)  # type: ignore[arg-type]
    _refused(answer, 409, "STORAGE_EXHAUSTED")
    assert place.shell("ls -A; test $(df --output=avail -m / | tail -1) -gt 500 && echo room") == "room\n"


class _Sized:
    """A body whose length is told before."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._pieces):
            yield PIECE


def _half(live: Live, place: Place, tail: str = "", content: bytes = PIECE) -> socket.socket:
    """Begin an upload, and see it under way."""
    connection = socket.create_connection(("127.0.0.1", live.port))
    head = (
        f"PUT {place.url}{tail}?{place.query('half')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {live.api_key}\r\n"
        f"Content-Length: {len(content) * 4}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    wait_until(lambda: _tools(place), 10, "the tool runs")
    return connection


def _tools(place: Place) -> str:
    return place.shell("grep -lsz -e '^write$' -e '^unpack$' -e '^read$' /proc/[0-9]*/cmdline || true")


@pytest.mark.parametrize("tail", ["", "/archive"])
def test_a_connection_that_drops_leaves_neither_file_nor_process(container_live: Live, place: Place, tail: str) -> None:
    content = PIECE if not tail else _tar(("data", None, "x" * 1_000_000))[:500_000]
    _half(container_live, place, tail, content).close()
    wait_until(lambda: not _tools(place), 10, "the tool is gone")
    assert place.shell("find . -type f") == ""


def test_a_server_that_is_killed_in_the_midst_leaves_neither_file_nor_process(
    container_live: Live, place: Place
) -> None:
    with _half(container_live, place):
        container_live.kill("server")
        container_live.wait_ready()
        wait_until(lambda: not _tools(place), 20, "the tool is gone")
    assert place.shell("ls -A") == ""
    place.write("half", b"whole").raise_for_status()


def test_a_download_that_nobody_reads_on_ends_its_tool(container_live: Live, place: Place) -> None:
    place.shell("truncate -s 1G sparse")
    with place.api.stream("GET", f"{place.url}?{place.query('sparse')}") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        assert _tools(place)
    wait_until(lambda: not _tools(place), 10, "the tool is gone")
    place.shell("rm sparse")


def _answer(connection: socket.socket) -> tuple[int, dict[str, object]]:
    """The answer of a server that closes afterwards, or keeps the connection: its status and its problem."""
    connection.settimeout(60)
    with connection, HTTPResponse(connection) as answer:
        answer.begin()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("tail", ["", "/archive"])
def test_an_upload_that_the_deletion_of_its_machine_cuts_off_is_not_to_be_tried_again(
    container_live: Live, container_api: Api, tail: str
) -> None:
    place = Place(container_api, container_api.create_machine(), "/srv")
    content = PIECE if not tail else _tar(("data", None, "x" * 1_000_000))[:500_000]
    connection = _half(container_live, place, tail, content)
    deleted = container_api.delete(f"/v1/machines/{place.machine_id}", params={"wait_ms": 20_000})
    assert deleted.json()["phase"] == "destroyed"
    connection.sendall(content * 3)
    status, problem = _answer(connection)
    assert (status, "deleted" in str(problem["detail"])) == (404, True), problem


@pytest.fixture(scope="module", name="hasty")
def _hasty(start_live: StartLive) -> Iterator[Live]:
    """A Dormice that waits two seconds for a file tool that does nothing."""
    with start_live("container", DORMICE_LIMIT_FILE_STALL_MS="2000") as live:
        yield live


@pytest.fixture(name="held")
def _held(hasty: Live) -> Iterator[Place]:
    with hasty.client() as api:
        yield Place(api, api.create_machine(autosleep="never"), "/srv")


def _stop_tool(place: Place) -> None:
    """As a tenant may who is root in his machine."""
    place.shell("kill -STOP $(grep -lsz -e '^write$' -e '^unpack$' -e '^read$' /proc/[0-9]*/cmdline | cut -d/ -f3)")


@pytest.mark.parametrize("tail", ["", "/archive"])
def test_an_upload_whose_tool_is_stopped_in_the_machine_is_given_up(hasty: Live, held: Place, tail: str) -> None:
    content = PIECE if not tail else _tar(("data", None, "x" * 5_000_000))[: len(PIECE)]
    connection = _half(hasty, held, tail, content)
    _stop_tool(held)
    connection.sendall(content * 3)
    status, problem = _answer(connection)
    assert (status, problem["error_code"], "2000 ms" in str(problem["message"])) == (
        503,
        "DEPENDENCY_UNAVAILABLE",
        True,
    )
    wait_until(lambda: not _tools(held), 10, "the tool is killed")


def test_a_download_whose_tool_is_stopped_in_the_machine_is_cut_off(held: Place) -> None:
    held.shell("truncate -s 1G sparse")
    with held.api.stream("GET", f"{held.url}?{held.query('sparse')}") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        _stop_tool(held)
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    wait_until(lambda: not _tools(held), 10, "the tool is killed")


def test_a_sleeping_machine_is_woken_for_its_files(container_api: Api) -> None:
    place = Place(container_api, container_api.create_machine(), "/srv")
    place.write("kept", b"kept").raise_for_status()
    path = f"/v1/machines/{place.machine_id}/sleep"
    assert container_api.post(path, params={"wait_ms": 20_000}, headers=new_key()).json()["phase"] == "sleeping"
    assert place.read("kept") == b"kept"


def test_nobody_reaches_another_organizations_files(container_live: Live, place: Place) -> None:
    place.write("data", b"mine")
    made = place.api.post("/v1/keys", json={"organization": "strangers"}, headers=new_key()).json()
    with container_live.client(headers={"Authorization": f"Bearer {made['key']}"}) as stranger:
        theirs = Place(stranger, place.machine_id, place.directory)
        for method, tail in (
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("GET", "/stat"),
            ("GET", "/list"),
            ("POST", "/mkdir"),
            ("POST", "/rename"),
            ("GET", "/archive"),
            ("PUT", "/archive"),
        ):
            _refused(theirs.ask(method, "data", tail, to="/srv/other"), 404, "no such machine")
    assert place.read("data") == b"mine"
