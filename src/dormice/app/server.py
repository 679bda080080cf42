"""`dormice server`: the API, the engine and the store."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
from dormice.api.http.websocket_connection import WebSocketConnection
from dormice.api.previews.addresses import PreviewAddresses
from dormice.api.services import PreviewServices, Services, WorkflowServices
from dormice.api.webhooks.wire import document
from dormice.app.checks import account, check_server
from dormice.app.process import Ended, on_stop, one_failure, settle_garbage
from dormice.app.ssh import SshDoorway, doorway, open_ssh
from dormice.config import Settings, SettingsError
from dormice.domain.limits import Limits, MachineDefaults
from dormice.engine.clock import SystemClock
from dormice.engine.engine import Engine
from dormice.engine.observer import Observer, Observers
from dormice.engine.runs.commands import EndsOfCommands
from dormice.engine.runs.engine import RunEngine
from dormice.engine.runs.policy import RunPolicy
from dormice.engine.service import serve
from dormice.engine.webhooks.delivering import Delivering, WebhookNews
from dormice.engine.webhooks.webhooks import Webhooks
from dormice.locks import HANDOVER_SECONDS, locked
from dormice.outbound.webhooks import WebhookPolicy, WebhookSender, check_webhook_url
from dormice.store.artifact_files import ArtifactFiles
from dormice.store.interface import StoreUnavailable
from dormice.store.sealing import Sealer
from dormice.store.sqlite import SqliteStore
from dormice.telemetry.counts import Counts
from dormice.telemetry.logs import log_to_stderr
from dormice.telemetry.prometheus import Exposition
from dormice.workers.push import PushClient, PushPolicy, check_push_url

if TYPE_CHECKING:
    from dormice.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

DRAIN_SECONDS = 5
TICK_SECONDS = 1.0
SWITCH_SECONDS = 0.0005
"""How long the store's threads may keep the event loop's from going on."""


def server(settings: Settings) -> None:
    """Run the server until a signal. Raises SettingsError, StoreUnavailable."""
    log_to_stderr(settings.log_level)
    check_server(settings)
    with directories.host_errors("the server"):
        for directory in (settings.data, settings.data / "server"):
            directories.make_directory(directory)
    lock = locked(settings.data / "server" / "lock", "`dormice server`", patience=HANDOVER_SECONDS)
    with lock, one_failure():  # before it listens: the earlier one has the port too
        with directories.host_errors("the server"):
            prepared = _prepare_server(settings)
        uvloop.run(_serve_server(prepared))


@dataclass(frozen=True, slots=True)
class _PreparedServer:
    """What a server holds once it has given up root."""

    home: Path
    directory: Path
    """The same, as this process sees it."""
    secret: str
    http: socket.socket
    ssh: SshDoorway | None
    node: socket.socket
    limits: Limits
    defaults: MachineDefaults
    tracing: Tracing | None
    local_mode: bool
    terminals_by_id: bool
    push: PushPolicy
    webhooks: WebhookPolicy
    preview_url: str
    reserve_bytes: int


def _prepare_server(settings: Settings) -> _PreparedServer:
    limits, defaults = check_server(settings)
    directory = settings.data / "server"
    settings.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    http, node_socket = listeners.tcp(settings.listen, settings.address()), listeners.unix(settings.node_socket)
    push, webhooks = _push_policy(settings), _webhook_policy(settings, limits)
    ssh = doorway(settings)
    secret = admin_key(settings, limits)
    tracing = _tracing()
    privileges.take_descriptors()
    if os.geteuid() == 0:
        uid, gid = account(settings)
        privileges.take_precedence()
        directories.give(directory, uid, gid)
        directory = privileges.private_view(directory, settings.run / "server")
        privileges.drop(uid, gid)
    return _PreparedServer(
        settings.data / "server",
        directory,
        secret,
        http,
        ssh,
        node_socket,
        limits,
        defaults,
        tracing,
        settings.local_mode,
        settings.terminals_by_id,
        push,
        webhooks,
        settings.preview_url or _local_preview_url(settings, http),
        settings.storage_reserve_gib << 30,
    )


def _local_preview_url(settings: Settings, http: socket.socket) -> str:
    """In local mode pages of previews must not be of one origin with an API that asks for no key."""
    return f"http://*.localhost:{http.getsockname()[1]}" if settings.local_mode else ""


def _push_policy(settings: Settings) -> PushPolicy:
    try:
        return PushPolicy(settings.local_mode, tuple(filter(None, map(str.strip, settings.push_allow.split(",")))))
    except ValueError as error:
        raise SettingsError(f"push_allow: {error}") from None


def _webhook_policy(settings: Settings, limits: Limits) -> WebhookPolicy:
    allowed = tuple(filter(None, map(str.strip, settings.webhook_allow.split(","))))
    try:
        return WebhookPolicy(allowed, limits.webhook_attempt_ms / 1000, limits.webhook_answer_bytes)
    except ValueError as error:
        raise SettingsError(f"webhook_allow: {error}") from None


def _tracing() -> Tracing | None:
    if not config.has_collector():
        return None
    try:
        from dormice.telemetry.tracing import Tracing  # noqa: PLC0415 - an extra, and nobody else has to load it
    except ImportError as missing:
        wanted = " or ".join(config.COLLECTOR_VARIABLES)
        raise SettingsError(f"{wanted} is set, and {missing.name} is not installed: dormice[otel] has it") from None
    return Tracing(version("dormice"))


async def _serve_server(prepared: _PreparedServer) -> None:
    ssh = open_ssh(prepared.ssh, prepared.directory, prepared.limits)
    sealer, store = _open_store(prepared)
    counts, tracing, clock = Counts(), prepared.tracing, SystemClock()
    pusher = PushClient(prepared.push)
    sender = WebhookSender(prepared.webhooks)
    ends, news = EndsOfCommands(), WebhookNews()
    observers: list[Observer] = [counts, ends, news]
    if tracing is not None:
        tracing.start()
        observers.append(tracing)
    observer = Observers(observers)
    try:
        async with asyncio.TaskGroup() as group:
            engine = Engine(
                store=store,
                clock=clock,
                limits=prepared.limits,
                defaults=prepared.defaults,
                fingerprint=sealer.request_hash,
                group=group,
                observer=observer,
                ssh_authority=ssh.authority if ssh is not None else None,
                contents=ArtifactFiles(prepared.directory / "artifacts", reserve_bytes=prepared.reserve_bytes),
            )
            await engine.keys.admit(prepared.secret)
            webhooks = Webhooks(
                store=store.webhooks,
                news=news,
                feed=engine.feed,
                in_flight=engine.in_flight,
                tasks=engine.tasks,
                clock=clock,
                limits=prepared.limits,
                check_url=partial(check_webhook_url, policy=prepared.webhooks),
            )
            delivering = Delivering(
                store=store.webhooks,
                news=news,
                sender=sender,
                describe=partial(document, limits=prepared.limits),
                feed=engine.feed,
                tasks=engine.tasks,
                clock=clock,
                limits=prepared.limits,
                observer=observer,
            )
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
                failing=engine.health.failing,
                observer=observer,
            )
            ends.bind(runs.commands)
            await engine.load()
            await runs.start()  # now: it asks for the end of commands, and has to hear of those that end
            await engine.start()
            group.create_task(serve("webhooks", delivering.turn, engine.health.failing), name="webhooks")
            services = Services(
                executions=engine.executions,
                machines=engine.machines,
                terminals=engine.terminals,
                key_tokens=engine.key_tokens,
                terminals_by_id=prepared.terminals_by_id,
                snapshots=engine.snapshots,
                autoresizing=engine.autoresizing,
                log_tokens=engine.log_tokens,
                usage=engine.usage,
                ssh_sessions=engine.ssh_sessions,
                files=engine.files,
                artifacts=engine.artifacts,
                keys=engine.keys,
                webhooks=webhooks,
                health=engine.health,
                metrics=Exposition(
                    version=version("dormice"),
                    counts=counts,
                    commits=store.commits,
                    census=engine.census,
                    run_census=runs.census,
                    stored_census=engine.stored_census,
                    ssh=engine.ssh_sessions.traffic,
                    parts=engine.health.parts,
                ),
                requests=counts,
                tracer=tracing,
                limits=prepared.limits,
                defaults=prepared.defaults,
                previews=PreviewServices(
                    previews=engine.previews, addresses=PreviewAddresses(prepared.preview_url), now=clock.steady
                ),
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
                    approvals=runs.approvals,
                    traces=runs.traces,
                    sessions=runs.sessions,
                    lists=runs.lists,
                    reruns=runs.reruns,
                    keys=engine.keys,
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
                    ws=WebSocketConnection,
                    ws_max_size=prepared.limits.websocket_message_bytes,
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
            if ssh is not None:
                await ssh.listen(engine)

            on_stop(http.stop)
            host, port = prepared.http.getsockname()[:2]
            log.info("listening on http://%s:%d", host, port)
            settle_garbage()
            sys.setswitchinterval(SWITCH_SECONDS)
            await http.serve(sockets=[prepared.http])
            if ssh is not None:
                await ssh.close()
            log.info("drained; stopping")
            nodes.close()
            raise Ended
    except* Ended:
        pass
    finally:
        await pusher.close()
        await sender.close()
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
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin to stop; `serve` returns when all requests are answered."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Run until told to stop. A tick puts the date into answers; uvicorn's own loop ticks ten times a second."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and only then drain: who comes in between would wait, and hold the stop up."""
        for drain in self._drains:
            asyncio.get_running_loop().call_soon(drain)  # as soon as this waits for connections that it has told
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
