"""Under which address a preview is served: a host of its own, or a path below our own host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PREFIX = "/p/"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request for a preview is for."""

    preview_id: str
    path: bytes
    """As the program behind it is to see it, quoted as it came. Empty: the slash at its start is missing."""
    prefix: str
    """The path that it is served below; empty on a host of its own."""
    origin: str
    """Scheme, host and port as the client sees them."""


class PreviewAddresses:
    """Knows previews by host or path. `url` is `SCHEME://*.DOMAIN[:PORT]` (hosts), `SCHEME://HOST[:PORT]` (paths), or empty:
    paths below the host that a client used.
    """

    def __init__(self, url: str = "") -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._authority = parts.netloc.removeprefix("*")
        """With a dot at its start where previews have hosts of their own."""
        self._domain = (urlsplit(f"//x{self._authority}").hostname or "")[1:] if self._has_hosts else ""

    @property
    def _has_hosts(self) -> bool:
        return self._authority.startswith(".")

    def url(self, preview_id: str, scheme: str, host: str) -> str:
        """Return a preview's address; `scheme` and `host` are those by which the client reached us."""
        if self._has_hosts:
            return f"{self._scheme}://{preview_id}{self._authority}/"
        origin = f"{self._scheme}://{self._authority}" if self._authority else f"{scheme}://{host}"
        return f"{origin}{PREFIX}{preview_id}/"

    def target(self, scope: Mapping[str, Any]) -> Target | None:
        """Return what a request is for, None where it is for no preview."""
        host = ""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1")
                break
        scheme = self._scheme or {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        if self._has_hosts:
            name = host.lower().rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host.lower()
            if not name.endswith(self._domain):
                return None
            preview_id = name.removesuffix(self._domain)
            return Target(preview_id, raw, "", f"{scheme}://{host}")
        if not raw.startswith(PREFIX.encode()):
            return None
        segment, slash, rest = raw[len(PREFIX) :].partition(b"/")
        preview_id = segment.decode("latin-1")
        return Target(preview_id, slash + rest, f"{PREFIX}{preview_id}", f"{scheme}://{host}")
