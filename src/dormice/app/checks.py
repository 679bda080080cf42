"""What can be found wrong with a server's settings before anything is made."""

from __future__ import annotations

import os

from dormice import config, privileges
from dormice.config import Settings, SettingsError
from dormice.domain.addresses import is_loopback
from dormice.domain.limits import Limits, MachineDefaults


def check_server(settings: Settings) -> tuple[Limits, MachineDefaults]:
    """Return the limits and defaults that are set. Raises SettingsError."""
    limits, defaults = config.limits(), config.machine_defaults()
    if settings.api_key:
        config.check_key(settings.api_key, limits, "DORMICE_API_KEY")
    if settings.local_mode and not is_loopback(settings.address()[0]):
        raise SettingsError(
            f"local_mode needs no keys, so listen must be an address of this host only, not {settings.listen}"
        )
    if os.geteuid() == 0:
        account(settings)
    return limits, defaults


def account(settings: Settings) -> tuple[int, int]:
    """Return the uid and gid of the server's user. Raises SettingsError."""
    try:
        return privileges.account(settings.user, default=config.DEFAULT_USER)
    except LookupError:
        raise SettingsError(f"user is {settings.user!r}, and this host has no such user") from None
