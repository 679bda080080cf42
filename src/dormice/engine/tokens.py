"""Tokens for one thing and a short time, for clients that cannot send a key: nothing of them is stored."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from dormice.domain.execution import Micros
from dormice.engine.clock import Clock

_FORM = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)


class Tokens:
    """Issues and checks them, with a key of the server's: HMAC over the purpose, the subject and the end of its time."""

    def __init__(self, *, sign: Callable[[bytes], str], clock: Clock) -> None:
        self._sign = sign
        self._clock = clock

    def issue(self, purpose: str, subject: str, *, seconds: int) -> str:
        """Return a token, printable and fit for a URL. A secret."""
        until = self._clock.steady() // 1_000_000 + seconds
        return f"{until}.{self._signature(purpose, subject, until)}"

    def good(self, purpose: str, subject: str, token: str) -> bool:
        """Whether the token was issued for this, and its time is not over."""
        form = _FORM.fullmatch(token)
        issued = form is not None and hmac.compare_digest(form[2], self._signature(purpose, subject, int(form[1])))
        return issued and self._clock.steady() < self.expiry(token)

    def expiry(self, token: str) -> Micros:
        """When the time of a token that was issued here is over, by the steady clock."""
        return int(token.partition(".")[0]) * 1_000_000

    def _signature(self, purpose: str, subject: str, until: int) -> str:
        return self._sign(f"token\n{purpose}\n{subject}\n{until}".encode("utf-8", "replace"))
