"""Signed links to previews: who holds one is let in until it expires, as if by the key that it was made with.

A token is `EXPIRY.KEY.MAC`: seconds since the epoch, the id of the key, and an HMAC over both and the preview's id.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable

from dormice.domain.execution import Micros
from dormice.domain.preview import Preview

_SECOND_US = 1_000_000
_TOKEN = re.compile(r"([0-9]{1,12})\.(key-[0-9a-f-]{36})\.([A-Za-z0-9_-]{43})", re.ASCII)


class PreviewLinks:
    """Makes and reads tokens. `sign` is an HMAC with a key of the server's."""

    def __init__(self, sign: Callable[[bytes], bytes]) -> None:
        self._sign = sign

    def make(self, preview: Preview, key_id: str, expires_at: Micros) -> str:
        """Return a token for the preview; it counts until the second of `expires_at` begins."""
        expiry = expires_at // _SECOND_US
        return f"{expiry}.{key_id}.{self._mac(preview, expiry, key_id)}"

    def read(self, preview: Preview, token: str, now: Micros) -> tuple[str, Micros] | None:
        """Return which key a token was made with and when it expires; None for one that is none of ours, another preview's, or expired."""
        if (match := _TOKEN.fullmatch(token)) is None:
            return None
        expiry, key_id = int(match[1]), match[2]
        expires_at = expiry * _SECOND_US
        if not hmac.compare_digest(match[3], self._mac(preview, expiry, key_id)) or expires_at <= now:
            return None
        return key_id, expires_at

    def _mac(self, preview: Preview, expiry: int, key_id: str) -> str:
        mac = self._sign(f"{preview.id}\n{expiry}\n{key_id}".encode())
        return urlsafe_b64encode(mac).decode().rstrip("=")
