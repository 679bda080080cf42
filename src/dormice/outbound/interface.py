"""What the engine knows of requests to webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: the status that was answered, or why there was none."""

    status: int | None
    error: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the endpoint has taken it."""
        return self.status is not None and 200 <= self.status < 300


class Sender(Protocol):
    """Sends a request to a URL, following nothing, and bounded in time and size."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a JSON document, at most once, and return what was answered. Raises nothing but cancellation."""
        ...
