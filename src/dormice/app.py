"""The composition root: the only module that names adapters. `server`, `node` and `up` are the three processes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from dormice import config, directories, listeners, privileges
from dormice.admin_key import admin_key
from dormice.api.app import create_app
from dormice.api.http.connection import Connection
from dormice.api.services import Services, WorkflowServices
from dormice.config import Settings, SettingsError
from dormice.domain.limits import Limits, MachineDefaults
from dormice.engine.clock import SystemClock
from dormice.engine.engine import Engine
from dormice.engine.observer import Observer, Observers
from dormice.engine.runs.commands import EndsOfCommands
from dormice.engine.runs.engine import RunEngine
from dormice.engine.runs.policy import RunPolicy
from dormice.locks import HANDOVER_SECONDS, locked
from dormice.node import leftovers
from dormice.node.dns import Forwarder
from dormice.node.host_leftovers import Found, Leftover
from dormice.node.images import Images, list_images
from dormice.node.machines import ContainerRuntime, ContainerSettings
from dormice.node.network import Networks
from dormice.node.node import Node, NodeIdentity
from dormice.node.process import ProcessRuntime
from dormice.node.runtime import Runtime, RuntimeFailure
from dormice.store.interface import StoreUnavailable
from dormice.store.sealing import Sealer
from dormice.store.sqlite import SqliteStore
from dormice.store.sqlite.survey import survey
from dormice.supervisor import LIFELINE, supervise
from dormice.telemetry.counts import Counts
from dormice.telemetry.logs import log_to_stderr
from dormice.telemetry.prometheus import Exposition
from dormice.workers.push import PushClient, PushPolicy, check_push_url

if TYPE_CHECKING:
    from dormice.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

DRAIN_SECONDS = 5
GARBAGE_OBJECTS = 50_000
"""How many new objects before the collector looks for cycles among them: a request makes hundreds, and no cycle."""

SWITCH_SECONDS = 0.0005
"""How long the store's threads may keep the event loop's from going on."""


class _Ended(Exception):
    """Raised inside the TaskGroup to end every service: an orderly stop."""


def up(settings: Settings) -> int:
    """Run server and node on this host until a signal. Returns the exit code. Raises SettingsError."""
    log_to_stderr(settings.log_level)
    _check_server(settings)
    directories.make_directory(settings.data)
    with locked(settings.data / "up.lock", "`dormice up`"):
        return supervise(settings)


def server(settings: Settings) -> None:
    """Run the server until a signal. Raises SettingsError, StoreUnavailable."""
    log_to_stderr(settings.log_level)
    _check_server(settings)
    with directories.host_errors("the server"):
        for directory in (settings.data, settings.data / "server"):
            directories.make_directory(directory)
    lock = locked(settings.data / "server" / "lock", "`dormice server`", patience=HANDOVER_SECONDS)
    with lock, _one_failure():  # before it listens: the earlier one has the port too
        with directories.host_errors("the server"):
            prepared = _prepare_server(settings)
        uvloop.run(_serve_server(prepared))


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
    with lock, _one_failure():
        uvloop.run(_serve_node(settings))


# The server


@dataclass(frozen=True, slots=True)
class _PreparedServer:
    """What a server holds once it has given up root."""

    home: Path
    directory: Path
    """The same, as this process sees it."""
    secret: str
    http: socket.socket
    node: socket.socket
    limits: Limits
    defaults: MachineDefaults
    tracing: Tracing | None
    local_mode: bool
    push: PushPolicy


def _prepare_server(settings: Settings) -> _PreparedServer:
    limits, defaults = _check_server(settings)
    directory = settings.data / "server"
    settings.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    http, node_socket = listeners.tcp(settings.listen, settings.address()), listeners.unix(settings.node_socket)
    push = _push_policy(settings)
    secret = admin_key(settings, limits)
    tracing = _tracing()
    privileges.take_descriptors()
    if os.geteuid() == 0:
        uid, gid = _account(settings)
        privileges.take_precedence()
        directories.give(directory, uid, gid)
        directory = privileges.private_view(directory, settings.run / "server")
        privileges.drop(uid, gid)
    return _PreparedServer(
        settings.data / "server",
        directory,
        secret,
        http,
        node_socket,
        limits,
        defaults,
        tracing,
        settings.local_mode,
        push,
    )


def _check_server(settings: Settings) -> tuple[Limits, MachineDefaults]:
    """Check what can be checked before anything is made. Raises SettingsError."""
    limits, defaults = config.limits(), config.machine_defaults()
    if settings.api_key:
        config.check_key(settings.api_key, limits, "DORMICE_API_KEY")
    if settings.local_mode and not config.is_loopback(settings.address()[0]):
        raise SettingsError(
            f"local_mode needs no keys, so listen must be an address of this host only, not {settings.listen}"
        )
    if os.geteuid() == 0:
        _account(settings)
    return limits, defaults


def _push_policy(settings: Settings) -> PushPolicy:
    try:
        return PushPolicy(settings.local_mode, tuple(filter(None, map(str.strip, settings.push_allow.split(",")))))
    except ValueError as error:
        raise SettingsError(f"push_allow: {error}") from None


def _tracing() -> Tracing | None:
    if not config.has_collector():
        return None
    try:
        from dormice.telemetry.tracing import Tracing  # noqa: PLC0415 - an extra, and nobody else has to load it
    except ImportError as missing:
        wanted = " or ".join(config.COLLECTOR_VARIABLES)
        raise SettingsError(f"{wanted} is set, and {missing.name} is not installed: dormice[otel] has it") from None
    return Tracing(version("dormice"))


def _account(settings: Settings) -> tuple[int, int]:
    try:
        return privileges.account(settings.user, default=config.DEFAULT_USER)
    except LookupError:
        raise SettingsError(f"user is {settings.user!r}, and this host has no such user") from None


async def _serve_server(prepared: _PreparedServer) -> None:
    sealer, store = _open_store(prepared)
    counts, tracing, clock = Counts(), prepared.tracing, SystemClock()
    pusher = PushClient(prepared.push)
    ends = EndsOfCommands()
    observers: list[Observer] = [counts, ends]
    if tracing is not None:
        tracing.start()
        observers.append(tracing)
    try:
        async with asyncio.TaskGroup() as group:
            engine = Engine(
                store=store,
                clock=clock,
                limits=prepared.limits,
                defaults=prepared.defaults,
                fingerprint=sealer.request_hash,
                group=group,
                observer=Observers(observers),
            )
            await engine.keys.admit(prepared.secret)
            runs = RunEngine(
                store=store,
                executions=engine.executions,
                pusher=pusher,
                clock=clock,
                policy=RunPolicy(pull_lost_ms=prepared.limits.worker_lost_ms),
                limits=prepared.limits,
                in_flight=engine.in_flight,
                tasks=engine.tasks,
                group=group,
            )
            ends.bind(runs.commands)
            await runs.start()  # first: once machines are there, commands of runs may end
            await engine.start()
            services = Services(
                executions=engine.executions,
                machines=engine.machines,
                keys=engine.keys,
                health=engine.health,
                metrics=Exposition(
                    version=version("dormice"),
                    counts=counts,
                    commits=store.commits,
                    census=engine.census,
                    parts=engine.health.parts,
                ),
                requests=counts,
                tracer=tracing,
                limits=prepared.limits,
                defaults=prepared.defaults,
                workflows=WorkflowServices(
                    registry=runs.registry,
                    workers=runs.workers,
                    runs=runs.runs,
                    attempts=runs.attempts,
                    events=runs.events,
                    schedules=runs.schedules,
                    triggers=runs.triggers,
                    pull=runs.pull,
                    batches=runs.batches,
                    check_push_url=partial(check_push_url, policy=prepared.push),
                    now=clock.now,
                    defaults=prepared.defaults,
                    local=await engine.keys.authenticate(prepared.secret) if prepared.local_mode else None,
                ),
            )
            http = _HttpServer(
                uvicorn.Config(
                    create_app(services),
                    loop="none",
                    http=Connection,
                    ws="none",
                    lifespan="off",
                    access_log=False,
                    log_config=None,
                    server_header=False,
                    proxy_headers=False,
                    date_header=True,
                    backlog=listeners.BACKLOG,
                    timeout_keep_alive=75,
                    timeout_graceful_shutdown=DRAIN_SECONDS,
                ),
                [engine.drain, runs.drain],
            )
            loop = asyncio.get_running_loop()
            group.create_task(counts.watch_loop(), name="loop lag")
            nodes = await loop.create_unix_server(engine.gateway.protocol, sock=prepared.node)

            on_stop(http.stop)
            host, port = prepared.http.getsockname()[:2]
            log.info("listening on http://%s:%d", host, port)
            _settle_garbage()
            sys.setswitchinterval(SWITCH_SECONDS)
            await http.serve(sockets=[prepared.http])
            log.info("drained; stopping")
            nodes.close()
            raise _Ended
    except* _Ended:
        pass
    finally:
        await pusher.close()
        await store.close()
        if tracing is not None:
            tracing.close()


def _open_store(prepared: _PreparedServer) -> tuple[Sealer, SqliteStore]:
    """Raises SettingsError: it names the directory by the name that people know, not by that of our private view."""
    file = prepared.directory / "dormice.sqlite3"
    try:
        sealer = Sealer.load(prepared.directory / "sealing-key", make=not file.exists() or not file.stat().st_size)
        return sealer, SqliteStore.open(file, sealer)
    except (StoreUnavailable, OSError) as error:
        full = "the disk is full: " if _is_full(prepared.directory) else ""  # SQLite does not always know
        raise SettingsError(f"the store in {prepared.home} cannot be opened: {full}{error}") from error


def _is_full(directory: Path) -> bool:
    try:
        return not os.statvfs(directory).f_bavail
    except OSError:  # not even to be looked at: the run directory lies where the server's user may not go
        return False


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: signals are ours."""

    def __init__(self, config: uvicorn.Config, drains: Sequence[Callable[[], None]]) -> None:
        """`drains` answer all requests that wait for something."""
        super().__init__(config)
        self._drains = drains

    def stop(self) -> None:
        """Begin to stop; `serve` returns when all requests are answered."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and only then drain: who comes in between would wait, and hold the stop up."""
        for drain in self._drains:
            asyncio.get_running_loop().call_soon(drain)  # as soon as this waits for connections that it has told
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


# The node


async def _serve_node(settings: Settings) -> None:
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
                group.create_task(Forwarder(networks.gateway, networks.network).run(), name="dns")
            opened.push_async_callback(runtime.close)
            node = Node(
                runtime=runtime, identity=identity, server_socket=str(settings.node_socket), images=names, group=group
            )
            node.adopt(live)
            group.create_task(node.serve(), name="node")
            group.create_task(node.watch_images(), name="images")
            _settle_garbage()
            await stop.wait()
            node.close()
            raise _Ended
    except* _Ended:
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


# What crashes leave


def collect(settings: Settings, handle: Callable[[Leftover], None], *, dry_run: bool) -> list[str]:
    """Hand what crashes have left of this instance to `handle`, which removes it, or not (`dry_run`: no lock is taken).

    Returns what was left alone, and why. Raises SettingsError, OSError.
    """
    instance = leftovers.Instance(
        data_dir=settings.data,
        run_dir=settings.run,
        images_dir=settings.images,
        name=settings.instance,
        network=settings.machine_network(),
    )
    with ExitStack() as held:
        host = Found()
        if not leftovers.node_runs(instance):
            if not dry_run and instance.lock.parent.is_dir():
                held.enter_context(locked(instance.lock, "`dormice node`"))
            host = leftovers.of_host(instance)
        for leftover in host.leftovers:
            handle(leftover)
    files = leftovers.of_files(instance, partial(_machines_of_store, settings))
    for leftover in files.leftovers:
        handle(leftover)
    return [*host.notes, *files.notes]


def _machines_of_store(settings: Settings) -> leftovers.Machines | None:
    try:
        live, since = survey(settings.data / "server" / "dormice.sqlite3")
    except StoreUnavailable as error:
        log.debug("the store cannot be asked: %s", error)
        return None
    return leftovers.Machines(live, since // 1000)


# Both


@contextmanager
def _one_failure() -> Iterator[None]:
    """Raise what an operator can act on as itself, out of the groups of the tasks it ended."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        if isinstance(cause, SettingsError | RuntimeFailure | StoreUnavailable):
            raise cause from None
        raise


def _settle_garbage() -> None:
    """Spare the collector what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 50)


def on_stop(act: Callable[[], None]) -> None:
    """Call `act` on SIGTERM, on SIGINT, and when the supervisor is gone."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, act)
    lifeline = os.environ.pop(LIFELINE, None)
    if lifeline is not None:
        fd = int(lifeline)

        def gone() -> None:
            loop.remove_reader(fd)
            act()

        loop.add_reader(fd, gone)
