"""What crashes left is found and removed; what may be somebody's is left alone."""

from __future__ import annotations

import fcntl
import os
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.node import network_lab
from tests.node.machine_lab import Lab, crash, lab, machine, new_machine_id, shell
from tests.wait import wait_until

from dormice.domain import ids
from dormice.node.images import Images, building, publish
from dormice.node.leftovers import Instance, Machines, node_runs, of_files, of_host
from dormice.node.network import Networks

NOW_MS = 1_800_000_000_000
NETWORK = IPv4Network("10.209.0.0/16")
ENDING = ("Cgroups.remove", "Disks.wait_released", "ContainerRuntime._remove")


def new_id(at_ms: int = NOW_MS) -> str:
    return ids.machine_id(at_ms, os.urandom(10))


@pytest.fixture(name="instance")
def _instance(tmp_path: Path) -> Instance:
    (tmp_path / "data" / "node" / "disks" / "machines").mkdir(parents=True)
    return Instance(
        data_dir=tmp_path / "data",
        run_dir=tmp_path / "run",
        images_dir=tmp_path / "images",
        name="lktest",
        network=NETWORK,
    )


def disk(instance: Instance, machine_id: str) -> Path:
    """The files of a machine's disk; the image itself."""
    image = instance.data_dir / "node" / "disks" / "machines" / f"{machine_id}.ext4"
    for path in (image, image.with_suffix(".base"), image.with_suffix(".growing")):
        path.write_bytes(b"x")
    return image


def remove_files(
    instance: Instance, machines: Machines | None, *, unknown_disks: bool = False
) -> tuple[list[str], list[str]]:
    """Remove what is found, with a store that says so; the kinds, and the notes."""
    found = of_files(instance, lambda: machines, unknown_disks=unknown_disks)
    for leftover in found.leftovers:
        leftover.remove()
    return [leftover.kind for leftover in found.leftovers], found.notes


def test_the_disk_of_a_machine_that_is_no_more_goes_and_that_of_a_live_one_stays(instance: Instance) -> None:
    live, gone = new_id(), new_id()
    kept, removed = disk(instance, live), disk(instance, gone)
    process = instance.data_dir / "node" / "process"
    for machine_id in (live, gone):
        (process / machine_id / "home").mkdir(parents=True)
        (process / f"{machine_id}.log").touch()
    kinds, notes = remove_files(instance, Machines(frozenset({live}), frozenset({gone}), NOW_MS - 1))
    assert (kinds, notes) == (["disk"], [])
    assert sorted(path.name for path in kept.parent.iterdir()) == sorted(
        f"{live}.{suffix}" for suffix in ("base", "ext4", "growing")
    )
    assert sorted(path.name for path in process.iterdir()) == [live, f"{live}.log"]
    assert not removed.exists()


@pytest.mark.parametrize("unknown_disks", [False, True])
def test_a_disk_that_the_store_does_not_know_goes_only_when_somebody_says_so(
    instance: Instance, *, unknown_disks: bool
) -> None:
    """A store that was restored does not know what was made since the backup."""
    since_backup = new_id()
    image = disk(instance, since_backup)
    store = Machines(frozenset({new_id(NOW_MS + 1)}), frozenset({new_id(NOW_MS + 2)}), NOW_MS - 1)
    kinds, notes = remove_files(instance, store, unknown_disks=unknown_disks)
    assert (kinds, image.exists()) == (["disk"] if unknown_disks else [], not unknown_disks)
    assert [since_backup in note and "--unknown-disks" in note for note in notes] == [True] * (not unknown_disks)


def test_a_snapshot_goes_when_it_has_failed_and_stays_when_the_store_has_it(instance: Instance) -> None:
    directory = instance.data_dir / "node" / "disks" / "snapshots"
    directory.mkdir(parents=True)
    live, gone = (new_id().replace("dm-", "snap-") for _ in range(2))
    for snapshot_id in (live, gone):
        for suffix in ("ext4", "base"):
            (directory / f"{snapshot_id}.{suffix}").write_text("x")
    kinds, notes = remove_files(instance, Machines(frozenset({live}), frozenset({gone}), 0))
    assert (kinds, notes) == (["disk"], [])
    assert sorted(path.name for path in directory.iterdir()) == [f"{live}.base", f"{live}.ext4"]


def test_without_the_word_of_the_store_every_disk_stays(instance: Instance) -> None:
    image = disk(instance, new_id())
    kinds, [note] = remove_files(instance, None)
    assert (kinds, image.exists()) == ([], True)
    assert "the store cannot say" in note


def test_a_disk_that_is_older_than_the_store_stays_for_it_may_be_the_wrong_store(instance: Instance) -> None:
    image = disk(instance, new_id(NOW_MS))
    store = Machines(frozenset(), frozenset(), NOW_MS + 1)
    kinds, [note] = remove_files(instance, store, unknown_disks=True)
    assert (kinds, image.exists()) == ([], True)
    assert "older than the store" in note


def test_a_disk_that_is_attached_stays_whatever_the_store_says(instance: Instance) -> None:
    machine_id = new_id()
    image = disk(instance, machine_id)
    with image.open("rb") as attached:
        fcntl.flock(attached, fcntl.LOCK_EX)
        kinds, [note] = remove_files(instance, Machines(frozenset(), frozenset({machine_id}), 0))
    assert (kinds, image.exists()) == ([], True)
    assert "in use" in note


def test_the_store_is_asked_only_after_the_disks_were_listed(instance: Instance) -> None:
    live: set[str] = set()

    def ask() -> Machines:
        disk(instance, new_id())  # of a machine that was made meanwhile
        return Machines(frozenset(live), frozenset(), 0)

    live.add(first := new_id())
    disk(instance, first)
    assert of_files(instance, ask).leftovers == []


def test_superseded_images_and_old_drafts_go(instance: Instance) -> None:
    for _ in range(2):
        with building(instance.images_dir, "mine", lambda _: None) as work:
            (work / "rootfs").mkdir()
            publish(instance.images_dir, "mine", work / "rootfs", source="a test", environment={})
    old, new = (instance.data_dir / f"api-key.{digits}" for digits in ("00000000", "11111111"))
    for path in (old, new, instance.data_dir / "api-key"):
        path.touch()
    os.utime(old, (1, 1))
    kinds, notes = remove_files(instance, None)
    assert (sorted(kinds), notes) == (["image", "temporary file"], [])
    assert (old.exists(), new.exists(), (instance.data_dir / "api-key").exists()) == (False, True, True)
    assert Images(instance.images_dir).resolve("mine").rootfs.exists()


def test_half_made_disks_go_while_no_node_runs(instance: Instance) -> None:
    disks = instance.data_dir / "node" / "disks"
    for directory in ("pool", "templates"):
        (disks / directory).mkdir()
    files = [disks / "pool" / "1-abc", disks / "templates" / "x.new", disks / "machines" / "dm-1.new"]
    for path in (*files, disks / "templates" / "1gib.ext4"):
        path.touch()
    for leftover in of_host(instance).leftovers:
        leftover.remove()
    assert not any(path.exists() for path in files)
    assert (disks / "templates" / "1gib.ext4").exists()


def test_whether_a_node_runs_is_seen_without_touching_its_lock(instance: Instance) -> None:
    assert not node_runs(instance)
    with instance.lock.open("w") as node:
        assert not node_runs(instance)
        fcntl.flock(node, fcntl.LOCK_EX)
        assert node_runs(instance)
    assert not node_runs(instance)


# What only root may see


def of_lab(made: Lab, **changes: Path) -> Instance:
    fields = {"data_dir": made.data.parent, "run_dir": made.run, "images_dir": made.data / "none", **changes}
    return Instance(**fields, name=made.cgroup_parent, network=NETWORK)


@pytest.mark.machines
@pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")
@pytest.mark.parametrize("step", ["Slots.take", "Disks.attach", "sent", "ContainerRuntime._record_process", *ENDING])
async def test_what_a_node_killed_at_any_step_has_left_goes_and_the_disk_stays(tmp_path: Path, step: str) -> None:
    machine_id = new_machine_id()
    async with lab(tmp_path) as made:
        async with made.opened() as runtime, machine(runtime, machine_id=machine_id) as (_, inside):
            await inside.run("echo kept > /root/file && sync")
        await crash(made, machine_id, step)
        # What waited in a cgroup for a command sees that its node is gone, and ends in its own time.
        wait_until(lambda: not of_host(of_lab(made)).notes, 10, "nobody's processes have ended")
        for leftover in of_host(of_lab(made)).leftovers:
            leftover.remove()
        assert of_host(of_lab(made)).leftovers == []
        # The kernel takes the mounts of a killed start down in its own time.
        wait_until(lambda: not made.leftovers(), 10, "the disk is detached")
        async with made.opened() as runtime, machine(runtime, machine_id=machine_id) as (_, inside):
            assert (await inside.run("cat /root/file")).stdout == "kept\n"


@pytest.mark.machines
@pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")
async def test_a_machine_that_lives_without_its_node_keeps_all_that_is_its_own(tmp_path: Path) -> None:
    machine_id = new_machine_id()
    async with lab(tmp_path) as made:
        await crash(made, machine_id, "MachineRoot.unmount")
        for leftover in of_host(of_lab(made)).leftovers:
            leftover.remove()
        runtime = made.runtime()
        [running] = await runtime.open()
        async with shell(running) as inside:
            assert (await inside.run("echo alive")).stdout == "alive\n"
        await runtime.end(machine_id)
        await runtime.close()


@pytest.mark.machines
@pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")
async def test_processes_that_no_record_explains_are_left_alone(tmp_path: Path) -> None:
    async with lab(tmp_path) as made, made.opened() as runtime, machine(runtime) as (_, inside):
        found = of_host(of_lab(made, data_dir=tmp_path / "other", run_dir=tmp_path / "elsewhere"))
        assert found.leftovers == []
        assert "no record in" in found.notes[0]
        assert (await inside.run("echo alive")).stdout == "alive\n"


def settled_host() -> dict[str, str] | None:
    state = network_lab.state_of_the_host()
    return None if "DOWN" in state["ip -o link"] or "linkdown" in state["ip route"] else state


@pytest.mark.skipif(os.geteuid() != 0, reason="networks need root")
async def test_interfaces_rules_and_addresses_of_the_dead_go(tmp_path: Path) -> None:
    with network_lab.host_with_internet():
        before = wait_until(settled_host, 10, "its links are up")
        networks = Networks(tmp_path / "run", network=NETWORK, name="lktest", pool_size=0)
        await networks.open()
        await networks.acquire(new_machine_id())
        networks._give_name_up()  # as when its process dies
        assert network_lab.state_of_the_host() != before
        instance = Instance(
            data_dir=tmp_path, run_dir=tmp_path / "run", images_dir=tmp_path, name="lktest", network=NETWORK
        )
        for leftover in of_host(instance).leftovers:
            leftover.remove()
        assert settled_host() == before
        assert of_host(instance).leftovers == []
        for made in networks._owned.values():
            assert not isinstance(made, int)
            os.close(made.fd)
        networks._threads.shutdown()
