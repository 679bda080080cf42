"""The guest's file tools under ASan and UBSan: whatever an archive or an argument holds, nothing outside is touched."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzzed
from tests.fuzz.hostile import damaged
from tests.fuzz.test_archives import OUT, members
from tests.shares import one_at_a_time

GUEST = Path(__file__).parents[2] / "guest"
TOOL = GUEST / "build/dormice-guest-sanitized"
NOBODY = 65_534
"""Who can do no harm to this host, should a tool be wrong."""
ENDS = {0, 71, 76}
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:exitcode=99", "UBSAN_OPTIONS": "halt_on_error=1:exitcode=99"}
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


@pytest.fixture(autouse=True, scope="module")
def _made() -> None:
    with one_at_a_time("sanitized"):
        subprocess.run(["make", "--silent", "-C", GUEST, "sanitized"], check=True)


@st.composite
def _archives(draw: st.DrawFn) -> bytes:
    written = io.BytesIO()
    form = draw(st.sampled_from(FORMATS))
    with tarfile.open(fileobj=written, mode="w", format=form, errors="surrogateescape") as archive:
        for info, content in draw(st.lists(members(), max_size=6)):
            if form != tarfile.PAX_FORMAT:
                info.pax_headers = {}
            try:
                archive.addfile(info, io.BytesIO(content))
            except ValueError:  # the format has no room for such a name
                continue
    return written.getvalue()


def _tool(*words: str, given_bytes: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    user = NOBODY if os.geteuid() == 0 else None
    done = subprocess.run(
        [TOOL, *words], input=given_bytes, env=OPTIONS, capture_output=True, timeout=20, check=False, user=user, cwd="/"
    )
    assert done.returncode in ENDS, (words, done.returncode, done.stderr)
    assert done.returncode == 0 or done.stderr.split(b" ")[0].isdigit(), done.stderr
    return done


def _place(directory: str) -> Path:
    Path(directory).chmod(0o777)
    outside = Path(directory) / OUT[1:]
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    return outside


@fuzzed(60)
@given(_archives() | damaged(_archives()))
def test_an_archive_stays_in_its_directory(archive: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="dormice-") as directory:
        outside = _place(directory)
        into = f"{directory}/into"
        _tool("unpack", into, given_bytes=archive)
        assert {path.name for path in Path(directory).iterdir()} <= {"into", outside.name}
        assert not list(outside.iterdir())
        assert not Path(OUT).exists()
        if Path(into).is_dir():
            packed = _tool("pack", into)
            if packed.returncode == 0:
                with tarfile.open(fileobj=io.BytesIO(packed.stdout), errors="surrogateescape") as made:
                    found = {os.fsencode(member.name) for member in made}
                there = {os.fsencode(path.relative_to(into)) for path in Path(into).rglob("*")}
                assert found == there
            _tool("delete", into, "1")


_words = st.binary(max_size=40).map(quote_from_bytes) | st.text("%*?[]/.\\-0123456789abcdefABCDEF", max_size=40)


@fuzzed(100)
@given(st.sampled_from(("stat", "list", "mkdir", "rename", "glob", "read")), st.lists(_words, min_size=1, max_size=4))
def test_arguments_are_not_believed(tool: str, words: list[str]) -> None:
    if "\0" in "".join(words):
        return
    with tempfile.TemporaryDirectory(prefix="dormice-") as directory:
        _place(directory)
        inside = [f"{directory}/{word}" if index == 0 else word for index, word in enumerate(words)]
        if tool == "rename" and len(inside) > 1:
            inside[1] = f"{directory}/x"
        if tool == "mkdir" and ".." in words[0].replace("%2E", "."):
            return
        _tool(tool, *inside, given_bytes=words[0].encode())
