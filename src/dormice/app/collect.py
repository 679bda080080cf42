"""Collecting what crashes have left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from dormice.config import Settings
from dormice.locks import locked
from dormice.node import leftovers
from dormice.node.host_leftovers import Found, Leftover
from dormice.store.interface import StoreUnavailable
from dormice.store.sqlite.survey import survey

log = logging.getLogger(__name__)


def collect(
    settings: Settings, handle: Callable[[Leftover], None], *, dry_run: bool, unknown_disks: bool = False
) -> list[str]:
    """Hand what crashes have left of this instance to `handle`, which removes it, or not (`dry_run`: no lock is taken).

    `unknown_disks`: also disks that the store does not know.

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
    files = leftovers.of_files(instance, partial(_machines_of_store, settings), unknown_disks=unknown_disks)
    for leftover in files.leftovers:
        handle(leftover)
    return [*host.notes, *files.notes]


def _machines_of_store(settings: Settings) -> leftovers.Machines | None:
    try:
        found = survey(settings.data / "server" / "dormice.sqlite3")
    except StoreUnavailable as error:
        log.debug("the store cannot be asked: %s", error)
        return None
    return leftovers.Machines(found.live, found.gone, found.since // 1000)
