"""`dormice machines autoresizing` as a process, against a real HTTP server: whose setting it shows."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Dormice
from tests.client.fake_server import Answer, FakeServer

COMMAND = ("machines", "autoresizing")
ON, OFF = Answer(200, body={"enabled": True}), Answer(200, body={"enabled": False})


@pytest.mark.parametrize(
    ("own", "organization", "shown"),
    [(ON, OFF, ["on", "off", "off"]), (ON, ON, ["on", "on", "on"]), (OFF, ON, ["off", "on", "off"])],
)
def test_a_machines_setting_is_shown_with_what_is_in_effect(
    dormice: Dormice, server: FakeServer, own: Answer, organization: Answer, shown: list[str]
) -> None:
    server.planned += [own, organization]
    lines = dormice(*COMMAND, "--machine-id", "dm-1").stdout.decode().splitlines()
    assert [line.rsplit(maxsplit=1) for line in lines] == [
        list(pair) for pair in zip(("machine", "organization", "in effect"), shown, strict=True)
    ]
    asked = [request.path for request in server.requests]
    assert asked == ["/v1/machines/dm-1/autoresizing", "/v1/organization/autoresizing"]


def test_a_setting_that_the_organization_overrides_says_so_when_it_is_made(
    dormice: Dormice, server: FakeServer
) -> None:
    server.planned += [ON, OFF]
    done = dormice(*COMMAND, "on", "--machine-id", "dm-1")
    assert (done.returncode, done.stdout.splitlines()[-1].split()) == (0, [b"in", b"effect", b"off"])
    assert server.sent("PUT")[0].body == {"enabled": True}


def test_the_organizations_setting_is_named_as_its_own(dormice: Dormice, server: FakeServer) -> None:
    server.planned += [OFF]
    assert dormice(*COMMAND).stdout == b"organization  off\n"


def test_programs_get_the_servers_record(dormice: Dormice, server: FakeServer) -> None:
    server.planned += [ON]
    assert json.loads(dormice(*COMMAND, "--machine-id", "dm-1", "--json").stdout) == {"enabled": True}
