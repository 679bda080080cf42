"""`dormice node`: machines, their disks and networks."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import uvloop

from dormice import directories, privileges
from dormice.app.process import Ended, on_stop, one_failure, settle_garbage
from dormice.config import Settings
from dormice.locks import HANDOVER_SECONDS, locked
from dormice.node.dns import Forwarder
from dormice.node.images import Images, list_images
from dormice.node.machines import ContainerRuntime, ContainerSettings
from dormice.node.network import Networks
from dormice.node.node import Node, NodeIdentity
from dormice.node.process import ProcessRuntime
from dormice.node.runtime import Runtime
from dormice.telemetry.logs import log_to_stderr


def node(settings: Settings) -> None:
    """Run the node until a signal. Raises SettingsError, RuntimeFailure."""
    log_to_stderr(settings.log_level)
    directories.make_directory(settings.data)
    directories.make_directory(settings.data / "node")
    if settings.driver != "process":  # whose commands would inherit it
        privileges.take_descriptors()
        if os.geteuid() == 0:
            privileges.take_precedence()
    lock = locked(settings.data / "node" / "lock", "`dormice node`", patience=HANDOVER_SECONDS)
    with lock, one_failure():
        uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    identity = NodeIdentity(
        node_id=socket.gethostname(),
        vcpus=float(os.cpu_count() or 1),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        storage_gib=shutil.disk_usage(settings.data).total >> 30,
    )
    stop = asyncio.Event()
    on_stop(stop.set)
    try:
        async with AsyncExitStack() as opened, asyncio.TaskGroup() as group:
            if settings.driver == "process":
                runtime, names = _processes(settings), _any_image
                with directories.host_errors("the node"):
                    live = await runtime.open()
            else:
                networks = _networks(settings)
                await networks.open()
                opened.push_async_callback(networks.close)
                containers, names = _containers(settings, networks), partial(_image_names, settings.images)
                runtime, live = containers, await containers.open()
                group.create_task(containers.guard_memory(), name="memory")
                await networks.release_others({running.machine_id for running in live})
                group.create_task(networks.run(), name="networks")
                forwarder = Forwarder(networks.gateway, networks.network, gates=networks.gates)
                group.create_task(forwarder.run(), name="dns")
            opened.push_async_callback(runtime.close)
            node = Node(
                runtime=runtime, identity=identity, server_socket=str(settings.node_socket), images=names, group=group
            )
            node.adopt(live)
            group.create_task(node.serve(), name="node")
            group.create_task(node.watch_images(), name="images")
            group.create_task(node.watch_use(), name="use")
            settle_garbage()
            await stop.wait()
            node.close()
            raise Ended
    except* Ended:
        pass


def _networks(settings: Settings) -> Networks:
    return Networks(
        settings.run, network=settings.machine_network(), name=settings.instance, pool_size=settings.pool_size
    )


def _containers(settings: Settings, networks: Networks) -> ContainerRuntime:
    return ContainerRuntime(
        ContainerSettings(
            data_dir=settings.data / "node",
            guest=settings.guest_program,
            run_dir=settings.run,
            first_uid=settings.first_uid,
            disk_bytes_per_second=settings.disk_mib_per_second << 20,
            reserve_bytes=settings.storage_reserve_gib << 30,
            pool_size=settings.pool_size,
            cgroup_parent=settings.instance,
        ),
        Images(settings.images),
        networks,
    )


def _processes(settings: Settings) -> Runtime:
    return ProcessRuntime(data_dir=settings.data / "node", run_dir=settings.run, guest=settings.guest_program)


def _image_names(directory: Path) -> list[str]:
    return [record.name for record in list_images(directory)]


def _any_image() -> list[str]:
    return ["default"]
