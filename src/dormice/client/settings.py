"""Where the server is and which key to show it, from arguments, environment and, on the server's host, its data directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from dormice.client.errors import ConfigurationError

DEFAULT_BASE_URL = "http://127.0.0.1:7433"
DEFAULT_DATA_DIR = "/var/lib/dormice"
_LONGEST_LABEL = 64


class ClientSettings(NamedTuple):
    """What every request needs."""

    base_url: str
    """Without a slash at its end; may have a path, which goes before `/v1`."""
    api_key: str
    """Empty: no key is sent, which a server in local mode takes."""
    org_id: str | None
    project_id: str | None = None
    """Of which project runs are; None: of the organization's default one."""

    def __repr__(self) -> str:
        return f"ClientSettings(base_url={self.base_url!r}, org_id={self.org_id!r})"

    def headers(self) -> dict[str, str]:
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        if self.org_id:
            headers["x-dedalus-org-id"] = self.org_id
        if self.project_id:
            headers["x-project-id"] = self.project_id
        return headers


def resolve(
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    org_id: str | None = None,
    environment: Mapping[str, str] = os.environ,
    key_required: bool = True,
) -> ClientSettings:
    """Arguments win over `DORMICE_BASE_URL`, `DORMICE_API_KEY` and `DORMICE_ORG_ID`.

    Without a key and with a server on this host, the key is read from `<DORMICE_DATA_DIR>/api-key`
    (default `/var/lib/dormice`). Raises ConfigurationError if there is no key although one is required, or if the URL is none.
    """
    url = (base_url or environment.get("DORMICE_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
    _check(url)
    key = api_key or environment.get("DORMICE_API_KEY") or ""
    if not key and is_loopback(url):
        try:
            key = _key_of_this_host(environment)
        except ConfigurationError:
            if key_required:
                raise
    if not key and key_required:
        raise ConfigurationError("no API key: pass api_key or set DORMICE_API_KEY")
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError("the API key holds characters that no header can carry")
    return ClientSettings(url, key.strip(), org_id or environment.get("DORMICE_ORG_ID"))


def _check(url: str) -> None:
    """Here, because each transport would say it in another way, at its first request."""
    if "@" in url:  # not shown: a password stands before it
        raise ConfigurationError("the base URL must hold no user name and no password: the server asks for an API key")
    try:
        parts = urlsplit(url)
        named = all(0 < len(label) < _LONGEST_LABEL for label in (parts.hostname or "").removesuffix(".").split("."))
        good = (
            named and parts.scheme in {"http", "https"} and parts.port != 0 and not parts.query and not parts.fragment
        )
    except ValueError:
        good = False
    if not (good and url.isascii() and url.isprintable()):
        raise ConfigurationError(f"the base URL must begin with http:// or https:// and name a host, not {url!r}")


def is_loopback(url: str) -> bool:
    """Whether the URL names this host, so that no proxy is asked and the key file can be the server's."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _key_of_this_host(environment: Mapping[str, str]) -> str:
    path = os.path.join(environment.get("DORMICE_DATA_DIR") or DEFAULT_DATA_DIR, "api-key")  # noqa: PTH118 - pathlib is slow to load
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - likewise
            return file.read().strip()
    except FileNotFoundError:
        raise ConfigurationError(
            f"no API key: set DORMICE_API_KEY, or DORMICE_DATA_DIR to the --data-dir of the server on this host, which writes {path} when it starts"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"no API key: set DORMICE_API_KEY, or get leave to read {path} ({error.strerror})"
        ) from None
