"""Artifacts of executions on real machines: none is lost, whatever dies or falls asleep before they are copied."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dormice import AsyncDormice, Dormice
from tests.conformance.test_files import Place
from tests.conformance.test_sdks import SDKS
from tests.conftest import StartLive
from tests.live import Api, Live, new_key, path_of
from tests.wait import wait_until

pytestmark = pytest.mark.machines
Record = dict[str, Any]


def _collected(api: Api, record: Record, status: str = "collected") -> Record:
    """Wait until the artifacts are there."""
    found: Record = {}

    def settled() -> bool:
        found.update(api.get(path_of(record)).raise_for_status().json())
        return str(found["artifacts_status"]) != "pending"

    wait_until(settled, 30, "the artifacts are collected")
    assert found["artifacts_status"] == status, found
    return found


def _names(record: Record) -> list[str]:
    return [artifact["name"] for artifact in record["artifacts"]]


def _of(record: Record, number: int = 0) -> str:
    return f"/v1/machines/{record['machine_id']}/artifacts/{record['artifacts'][number]['artifact_id']}"


def test_what_matches_is_kept_also_when_the_command_fails(container_live: Live, container_api: Api) -> None:
    machine = container_api.create_machine()
    script = "mkdir -p out/deep; printf one > out/1.json; printf two > out/deep/2.txt; printf no > other; ln -s 1.json out/l.json; exit 3"
    record = container_api.shell(machine, script, artifacts=["out/*.json", "out/**", "/etc/hostname", "nothing/*"])
    assert (record["status"], record["artifacts_status"]) == ("failed", "pending")
    found = _collected(container_api, record)
    assert _names(found) == ["out/1.json", "out/l.json", "out/deep/2.txt", "/etc/hostname"]
    assert "artifacts_message" not in found
    one = container_api.get(_of(found)).raise_for_status().json()
    assert one["sha256"] == hashlib.sha256(b"one").hexdigest()
    assert (one["size_bytes"], one["mime_type"], one["execution_id"]) == (3, "application/json", record["execution_id"])
    assert container_api.get(f"{_of(found)}/content").content == b"one"
    part = container_api.get(f"{_of(found)}/content", headers={"Range": "bytes=1-1"})
    assert (part.status_code, part.content) == (206, b"n")
    kept = container_live.data / "server/artifacts" / one["artifact_id"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    listed = container_api.get(f"/v1/machines/{machine}/artifacts", params={"limit": 3}).json()
    assert [item["name"] for item in listed["items"]] == ["/etc/hostname", "out/deep/2.txt", "out/l.json"]
    rest = container_api.get(f"/v1/machines/{machine}/artifacts", params={"cursor": listed["next_cursor"]}).json()
    assert [item["name"] for item in rest["items"]] == ["out/1.json"]
    assert container_api.delete(_of(found)).json()["artifact_id"] == one["artifact_id"]
    assert container_api.get(_of(found)).status_code == container_api.delete(_of(found)).status_code == 404
    assert not kept.exists()


def test_a_download_url_is_good_without_a_key_and_for_its_artifact_only(
    container_api: Api, container_machine: str
) -> None:
    record = container_api.shell(container_machine, "echo 1 > /srv/a; echo 2 > /srv/b", artifacts=["/srv/[ab]"])
    found = _collected(container_api, record)
    urls = [container_api.get(_of(found, number)).json()["download_url"] for number in (0, 1)]
    assert [httpx.get(url, trust_env=False).content for url in urls] == [b"1\n", b"2\n"]
    crossed = urls[0].partition("?")[0] + "?" + urls[1].partition("?")[2]
    for bad in (crossed, urls[0] + "0", urls[0][:-1], urls[0].partition("?")[0], urls[0].replace("token=", "token=9")):
        answer = httpx.get(bad, trust_env=False)
        assert answer.status_code in {404, 422}
        assert "application/problem+json" in answer.headers["content-type"]


def test_names_and_links_in_the_machine_lead_nowhere_else(container_api: Api, container_machine: str) -> None:
    record = container_api.shell(
        container_machine,
        "mkdir -p /srv/odd && cd /srv/odd && ln -sf /etc/shadow shadow && printf x > $'bad\\xff\\nname' && mkfifo -m 600 pipe; true",
        artifacts=["/srv/odd/*", "/dev/null", "/proc/1/environ"],
    )
    found = _collected(container_api, record)
    by_name = {name.rpartition("/")[2]: number for number, name in enumerate(_names(found))}
    assert {"shadow", "bad\ufffd\nname"} <= by_name.keys()
    assert "pipe" not in by_name
    assert "null" not in by_name
    own = Place(container_api, container_machine, "/srv/odd").read("/etc/shadow")
    assert container_api.get(f"{_of(found, by_name['shadow'])}/content").content == own


def test_a_machine_that_is_put_to_sleep_at_once_is_woken_for_them(container_api: Api) -> None:
    machine = container_api.create_machine()
    record = container_api.shell(machine, "head -c 3000000 /dev/zero > big", artifacts=["big"])
    container_api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    assert _names(_collected(container_api, record)) == ["big"]


def test_a_server_that_dies_before_they_are_copied_copies_them_when_it_is_back(
    container_live: Live, container_api: Api
) -> None:
    machine = container_api.create_machine()
    script = "head -c 200000000 /dev/urandom > big; sha256sum < big"
    record = container_api.shell(machine, script, artifacts=["big"], wait_ms=1)
    container_api.wait_for_output(record, b"-")
    container_live.kill("server")
    container_live.wait_ready()
    found = _collected(container_api, record)
    assert container_api.get(_of(found)).json()["sha256"] == container_api.output(record).split()[0].decode()
    directory = container_live.data / "server/artifacts"
    assert [path.name for path in directory.iterdir() if path.name.endswith(".draft")] == []


def test_what_cannot_be_had_any_more_is_told(container_api: Api) -> None:
    machine = container_api.create_machine()
    record = container_api.shell(machine, "echo runs; sleep 600", artifacts=["*"], wait_ms=1)
    container_api.wait_for_output(record, b"runs")
    container_api.delete(f"/v1/machines/{machine}", params={"wait_ms": 20_000})
    message = _collected(container_api, record, "failed")["artifacts_message"]
    assert "no such machine" in message or "the machine is destroying" in message


def test_one_that_never_ran_leaves_nothing(container_api: Api) -> None:
    machine = container_api.create_machine()
    record = container_api.execute(machine, "no-such-program", artifacts=["/etc/hostname"])
    assert _collected(container_api, record)["artifacts"] == []


def test_a_pattern_that_could_be_tried_in_countless_ways_is_soon_done(
    container_api: Api, container_machine: str
) -> None:
    script = "mkdir -p /srv/deep/$(printf 'a/%.0s' $(seq 40)) && touch /srv/deep/a/a/found"
    pattern = "/srv/deep/" + "**/*/" * 6 + "**/nomatch*"
    record = container_api.shell(container_machine, script, artifacts=[pattern, "/srv/deep/**/**/a/**/found"])
    assert _names(_collected(container_api, record)) == ["/srv/deep/a/a/found"]


@pytest.fixture(name="small", scope="module")
def _small(start_live: StartLive) -> Iterator[Live]:
    limits = {
        "ARTIFACTS_PER_EXECUTION": "3",
        "ARTIFACT_BYTES": "1000",
        "ARTIFACTS_TOTAL_BYTES": "1500",
        "ARTIFACT_PATTERNS": "4",
        "ARTIFACT_URL_SECONDS": "1",
    }
    with start_live("container", **{f"DORMICE_LIMIT_{name}": value for name, value in limits.items()}) as live:
        yield live


def test_limits_leave_out_and_say_so(small: Live) -> None:
    with small.client() as api:
        machine = api.create_machine()
        record = api.shell(machine, "touch 1 2 3 4 5", artifacts=["[1-5]"])
        found = _collected(api, record)
        assert _names(found) == ["1", "2", "3"]
        assert "artifacts_per_execution" in found["artifacts_message"]
        record = api.shell(machine, "touch 1 2 x; rm 3 4 5", artifacts=["[1-2]", "*", "[12]", "x"])
        assert _names(_collected(api, record)) == ["1", "2", "x"]
        record = api.shell(
            machine, "head -c 1001 /dev/zero > a; head -c 900 /dev/zero > b; cp b c", artifacts=["[a-c]"]
        )
        found = _collected(api, record)
        assert _names(found) == ["b"]
        assert "a: larger than artifact_bytes" in found["artifacts_message"]
        assert "c: together larger than artifacts_total_bytes" in found["artifacts_message"]
        body = {"command": ["true"], "artifacts": list("12345")}
        refused = api.post(f"/v1/machines/{machine}/executions", json=body, headers=new_key())
        assert (refused.status_code, "artifact_patterns" in refused.text) == (422, True)
        url = api.get(_of(found)).json()["download_url"]
        wait_until(lambda: httpx.get(url, trust_env=False).status_code == 404, 10, "the URL is no longer good")
        assert "no longer good" in httpx.get(url, trust_env=False).text


def test_nobody_reaches_another_organizations_artifacts(
    container_live: Live, container_api: Api, container_machine: str
) -> None:
    found = _collected(container_api, container_api.shell(container_machine, "true", artifacts=["/etc/hostname"]))
    made = container_api.post("/v1/keys", json={"organization": "strangers"}, headers=new_key()).json()
    with container_live.client(headers={"Authorization": f"Bearer {made['key']}"}) as stranger:
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
            assert stranger.request(method, _of(found) + path).status_code == 404
        assert stranger.get(f"/v1/machines/{container_machine}/artifacts").status_code == 404


async def test_the_clients_know_them(container_live: Live, container_machine: str) -> None:
    url, key = container_live.base_url, container_live.api_key
    with Dormice(base_url=url, api_key=key) as client:
        command = ["sh", "-c", "printf kept > /srv/kept"]
        made = client.machines.executions.create(
            container_machine, command=command, artifacts=["/srv/kept"], wait_ms=9000
        )
        with container_live.client() as api:
            found = _collected(api, {"machine_id": container_machine, "execution_id": made.execution_id})
        artifact_id = found["artifacts"][0]["artifact_id"]
        record = client.machines.executions.retrieve(made.execution_id, machine_id=container_machine)
        assert [artifact.artifact_id for artifact in record.artifacts or []] == [artifact_id]
        assert client.machines.artifacts.list(container_machine).items[0].artifact_id == artifact_id
        assert client.machines.artifacts.read(artifact_id, machine_id=container_machine) == b"kept"
    async with AsyncDormice(base_url=url, api_key=key) as client:
        artifacts = client.machines.artifacts
        pieces = [piece async for piece in artifacts.stream(artifact_id, machine_id=container_machine)]
        assert b"".join(pieces) == b"kept"
        stored = await artifacts.retrieve(artifact_id, machine_id=container_machine)
        assert "token" not in repr(stored)
        assert (await artifacts.delete(artifact_id, machine_id=container_machine)).name == "/srv/kept"


def test_the_command_line_keeps_lists_fetches_and_deletes_them(
    container_live: Live, container_api: Api, tmp_path: Path
) -> None:
    machine = container_api.create_machine()
    environment = {**os.environ, "DORMICE_BASE_URL": container_live.base_url, "DORMICE_API_KEY": container_live.api_key}

    def dormice(*words: str) -> bytes:
        command = [sys.executable, "-m", "dormice.cli", *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True).stdout

    def listed() -> list[Record]:
        lines = dormice("machines", "artifacts", "list", "--machine-id", machine, "--json").splitlines()
        return [json.loads(line) for line in lines]

    script = "mkdir out; head -c 3000000 /dev/urandom > out/data; sha256sum < out/data"
    told = dormice("exec", "--no-stdin", "--artifacts", "out/*", machine, "--", "sh", "-c", script).split()[0]
    wait_until(lambda: bool(listed()), 30, "the artifact is there")
    (record,) = listed()
    which = ("--machine-id", machine, "--artifact-id", record["artifact_id"])
    assert dormice("machines", "artifacts", "download", *which) == b"data\n"
    assert hashlib.sha256((tmp_path / "data").read_bytes()).hexdigest() == told.decode() == record["sha256"]
    dormice("machines", "artifacts", "delete", *which)
    assert listed() == []


_FOREIGN = """
import json, os, sys
from dedalus_sdk import Dedalus
client = Dedalus(api_key=os.environ["KEY"], base_url=sys.argv[1], _strict_response_validation=True)
artifacts = client.machines.artifacts
page = artifacts.list(machine_id=sys.argv[2])
one = artifacts.retrieve(machine_id=sys.argv[2], artifact_id=page.items[0].artifact_id)
gone = artifacts.delete(machine_id=sys.argv[2], artifact_id=one.artifact_id)
print(json.dumps([one.name, one.size_bytes, gone.artifact_id == one.artifact_id]))
"""


@pytest.mark.parametrize("version", ["0.1.0", "0.4.0"])
def test_the_foreign_sdk_knows_them(container_live: Live, container_api: Api, version: str) -> None:
    machine = container_api.create_machine()
    _collected(container_api, container_api.shell(machine, "printf x > kept", artifacts=["kept"]))
    environment = {"KEY": container_live.api_key, "PATH": "/usr/bin:/bin"}
    command = [str(SDKS / version / "bin/python"), "-c", _FOREIGN, container_live.base_url, machine]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["kept", 1, True]
