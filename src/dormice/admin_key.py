"""The host's own key: given, kept in a file, or made at the first start."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress

from dormice import config
from dormice.config import Settings
from dormice.domain.limits import Limits
from dormice.engine.keys import new_secret

log = logging.getLogger(__name__)


def admin_key(settings: Settings, limits: Limits) -> str:
    """Return the host's admin key: given, kept, or made now. It is kept in a file that only the owner can read."""
    path = settings.key_file
    secret = settings.api_key
    if not secret:
        try:
            secret = path.read_text().strip()
        except FileNotFoundError:
            secret = new_secret()
            log.info("made an admin key: %s", path)
        config.check_key(secret, limits, str(path))
    if not path.exists() or path.read_text().strip() != secret:
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{secret}\n")
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise
    return secret
