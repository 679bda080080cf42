"""What the doctor says of this host, and of hosts that lack something."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.node import network_lab as lab

from dormice.node.doctor import Check, Place, Status, can_run, examine
from dormice.node.firewall import judge, obstacles
from dormice.node.images import building, publish

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="asks what only root may see")


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    """A place where nothing is missing."""
    with building(tmp_path / "images", "default", lambda _: None) as work:
        (work / "rootfs").mkdir()
        publish(tmp_path / "images", "default", work / "rootfs", source="a test", environment={})
    guest = tmp_path / "guest"
    guest.touch(mode=0o755)
    return Place(
        data_dir=tmp_path / "data", images_dir=tmp_path / "images", run_dir=tmp_path / "run", guest=guest, user="root"
    )


def named(name: str, place: Place) -> Check:
    return next(check for check in examine(place) if check.name == name)


@needs_root
def test_where_nothing_is_missing_machines_can_run(place: Place) -> None:
    checks = list(examine(place))
    assert [check for check in checks if check.status is Status.FAIL] == []
    assert can_run(checks)


def test_each_check_has_a_name_of_its_own_and_a_fix_where_there_is_something_to_fix(place: Place) -> None:
    checks = list(examine(replace(place, guest=None, user="nobody-by-this-name")))
    assert len({check.name for check in checks}) == len(checks)
    assert all(bool(check.fix) == (check.status is not Status.OK) for check in checks)


def test_without_an_image_machines_cannot_run_and_the_command_is_named(place: Place, tmp_path: Path) -> None:
    check = named("default image", replace(place, images_dir=tmp_path / "none"))
    assert check.status is Status.FAIL
    assert check.fix == f"dormice image build --image-dir {tmp_path / 'none'}"


def test_without_the_guest_machines_cannot_run(place: Place) -> None:
    check = named("guest", replace(place, guest=None))
    assert (check.status, check.fix) == (Status.FAIL, "make install")


def test_a_missing_user_is_only_a_warning(place: Place) -> None:
    check = named("server's user", replace(place, user="nobody-by-this-name"))
    assert check.status is Status.WARN
    assert check.fix.startswith("useradd --system")
    assert can_run([check])


def test_a_missing_oci_runtime_is_a_failure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert named("OCI runtime", place).fix == "apt-get install -y crun"
    assert named("image tools", place).fix == "apt-get install -y mmdebstrap skopeo umoci"
    assert named("tools", place).status is Status.FAIL


@pytest.fixture(name="host")
def _host() -> Iterator[lab.Namespace]:
    with lab.host_with_internet() as internet:
        yield internet


@needs_root
@pytest.mark.usefixtures("host")
def test_a_range_that_the_host_routes_is_a_failure(place: Place) -> None:
    assert named("addresses", place).status is Status.OK
    lab.ip("route add 10.213.4.0/24 dev up0")
    assert named("addresses", place).status is Status.FAIL
    assert named("addresses", replace(place, network=IPv4Network("10.230.0.0/16"))).status is Status.OK


@needs_root
@pytest.mark.usefixtures("host")
def test_a_firewall_that_drops_is_found_and_its_fix_works(place: Place) -> None:
    lab.load_rules("table inet walls { chain way { type filter hook forward priority 0; policy drop; }; }")
    lab.load_rules("table ip gate { chain door { type filter hook input priority 0; policy drop; }; }")
    check = named("other packet rules", place)
    assert check.status is Status.WARN
    assert "inet walls way" in check.detail
    assert "ip gate door" in check.detail
    for obstacle in obstacles("dormice-"):
        lab.run_in_shell(obstacle.fix)


def chain(name: str, *, table: str = "filter", hook: str = "forward", policy: str = "drop") -> Mapping[str, object]:
    return {"chain": {"family": "ip", "table": table, "name": name, "hook": hook, "policy": policy}}


def listing(*chains: Mapping[str, object]) -> bytes:
    return json.dumps({"nftables": [{"metainfo": {}}, *chains]}).encode()


def test_dockers_own_drop_is_passed_by_the_node_itself() -> None:
    docker = {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}}
    assert list(judge(listing(chain("FORWARD"), docker), "dormice-")) == []
    assert len(list(judge(listing(chain("FORWARD")), "dormice-"))) == 1
    assert list(judge(listing(chain("FORWARD", policy="accept")), "dormice-")) == []
    assert list(judge(listing(), "dormice-")) == []
