"""`dormice up`: server and node, and who keeps them running."""

from __future__ import annotations

from dormice import directories
from dormice.app.checks import check_server
from dormice.config import Settings
from dormice.locks import locked
from dormice.supervisor import supervise
from dormice.telemetry.logs import log_to_stderr


def up(settings: Settings) -> int:
    """Run server and node on this host until a signal. Returns the exit code. Raises SettingsError."""
    log_to_stderr(settings.log_level)
    check_server(settings)
    directories.make_directory(settings.data)
    with locked(settings.data / "up.lock", "`dormice up`"):
        return supervise(settings)
