"""`dormice preview` and `dormice machines previews`, as processes against a real server; and our own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import httpx

from dormice import AsyncDormice, Dormice
from tests.live import Live
from tests.previews.conftest import Program


def _dormice(live: Live, *words: str, code: int = 0) -> str:
    environment = {**os.environ, "DORMICE_BASE_URL": live.base_url, "DORMICE_API_KEY": live.api_key}
    done = subprocess.run(
        [sys.executable, "-m", "dormice.cli", *words], env=environment, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    return done.stdout.decode() + done.stderr.decode()


def test_one_command_serves_a_port_and_prints_a_link_that_opens_it(program: Program, live: Live) -> None:
    link = _dormice(live, "preview", program.machine, str(program.port), "--link-seconds", "60").strip()
    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        assert browser.get(link).status_code == 200
    public = _dormice(live, "preview", program.machine, str(program.port), "--visibility", "public").strip()
    assert httpx.get(public, trust_env=False).status_code == 200
    told = json.loads(_dormice(live, "preview", program.machine, str(program.port), "--json"))
    assert told["link"].startswith(f"{told['url']}?dormice_token=")
    assert "port is 0" in _dormice(live, "preview", program.machine, "0", code=1)


def test_records_are_made_listed_and_deleted(program: Program, live: Live) -> None:
    which = ["--machine-id", program.machine, "--json"]
    made = json.loads(_dormice(live, "machines", "previews", "create", *which, "--port", str(program.port)))
    one = [*which, "--preview-id", made["preview_id"]]
    assert json.loads(_dormice(live, "machines", "previews", "get", *one))["port"] == program.port
    assert made["preview_id"] in _dormice(live, "machines", "previews", "list", "--machine-id", program.machine)
    assert "dormice_token" in json.loads(_dormice(live, "machines", "previews", "link", *one))["url"]
    assert json.loads(_dormice(live, "machines", "previews", "delete", *one))["status"] == "closed"


async def test_our_own_clients_make_previews(program: Program, live: Live) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        previews = client.machines.previews
        made = previews.create(program.machine, port=program.port, visibility="org", wait_ms=20_000)
        assert made.status == "ready"
        link = previews.link(program.machine, made.preview_id, expires_in_seconds=60)
        assert link.url.split("?")[0] == made.url
        assert "dormice_token" not in repr(link)
        assert made in list(previews.list(program.machine))
        assert previews.delete(program.machine, made.preview_id).status == "closed"
    async with AsyncDormice(base_url=live.base_url, api_key=live.api_key) as client:
        again = await client.machines.previews.retrieve(program.machine, made.preview_id)
        assert (again.status, again.port) == ("closed", program.port)
