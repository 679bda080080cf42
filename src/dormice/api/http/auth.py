"""Who calls: `Authorization: Bearer KEY` or `x-api-key: KEY`; either valid one is enough."""

from __future__ import annotations

from collections.abc import Mapping

from dormice.api.services import Keys
from dormice.domain.errors import Forbidden, Unauthenticated
from dormice.engine.orders import Caller

SCHEME = b"bearer"


async def authenticate(headers: Mapping[bytes, bytes], keys: Keys, key_max_chars: int) -> Caller:
    """Return the caller. Raises Unauthenticated, and Forbidden when the organization header names another one."""
    caller = await _owner(headers, keys, key_max_chars)
    wanted = headers.get(b"x-dedalus-org-id")
    if wanted and wanted.decode("latin-1") != caller.organization_id:
        raise Forbidden(
            "org scope does not match API key ownership: X-Dedalus-Org-Id names another organization",
            code="AUTH_ORG_MISMATCH",
        )
    return caller


async def _owner(headers: Mapping[bytes, bytes], keys: Keys, key_max_chars: int) -> Caller:
    candidates = _secrets(headers)
    if not candidates:
        raise Unauthenticated(
            "missing API key: send Authorization: Bearer KEY, or x-api-key: KEY", code="AUTH_REQUIRED"
        )
    for secret in candidates:
        if len(secret) <= key_max_chars:
            try:
                return await keys.authenticate(secret)
            except Unauthenticated:
                continue
    raise Unauthenticated("invalid API key: it is unknown or revoked", code="AUTH_INVALID")


def bearer(headers: Mapping[bytes, bytes]) -> str:
    """Return the bearer token. Raises Unauthenticated when there is none."""
    token = _bearer(headers)
    if not token:
        raise Unauthenticated("missing token: send Authorization: Bearer TOKEN", code="AUTH_REQUIRED")
    return token


def _bearer(headers: Mapping[bytes, bytes]) -> str:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == SCHEME else ""


def _secrets(headers: Mapping[bytes, bytes]) -> list[str]:
    """Return the keys that came, the bearer token first."""
    found = []
    if token := _bearer(headers):
        found.append(token)
    if plain := headers.get(b"x-api-key", b"").strip():
        found.append(plain.decode("latin-1"))
    return found
