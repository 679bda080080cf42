"""API keys and organizations. A key is known by its SHA-256 only."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import string
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID

from dormice.domain.errors import Forbidden, Invalid, NotFound, Unauthenticated
from dormice.domain.execution import Micros
from dormice.domain.limits import Limits
from dormice.engine.clock import Clock
from dormice.engine.orders import Caller
from dormice.engine.revocations import Revocations
from dormice.store.interface import Key, KeyRefusal, KeyStore

DEFAULT_ORGANIZATION = "default"
_CACHED_KEYS = 10_000
_SHOWN_CHARS = 8
USE_KEPT_US = 60_000_000
"""How exactly it is kept when a project's key was last used: one write in so long, however many requests there are."""
_LAST_CHARS = 4
_PROJECT_SECRET_CHARS = 32
_LETTERS = string.ascii_letters + string.digits
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*")


def new_secret() -> str:
    """Make an API key: `dmk_` and 43 characters of 256 random bits."""
    return f"dmk_{secrets.token_urlsafe(32)}"


class Keys:
    """Makes, checks and revokes keys. Raises Unauthenticated, Forbidden, Invalid, NotFound, StoreUnavailable."""

    def __init__(self, *, store: KeyStore, clock: Clock, limits: Limits) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._valid: dict[bytes, Caller] = {}
        self.revocations = Revocations()
        self._uses: dict[str, Micros] = {}
        """When projects' keys were last used, as it is recorded or about to be."""
        self._to_record: dict[str, Micros] = {}
        self._used = asyncio.Event()

    async def admit(self, secret: str) -> None:
        """Make sure that the host's own admin key exists. Raises Invalid for a key that is too short or too long."""
        if not self._limits.key_min_chars <= len(secret) <= self._limits.key_max_chars:
            raise Invalid(
                f"an API key has {self._limits.key_min_chars} to {self._limits.key_max_chars} characters, not {len(secret)}",
                location="DORMICE_API_KEY",
            )
        await self._make(DEFAULT_ORGANIZATION, "host", secret, admin=True)

    async def authenticate(self, secret: str) -> Caller:
        """Return who the key belongs to. Raises Unauthenticated.

        Looking a hash up takes the same time whatever part of a wrong key is right.
        """
        digest = _digest(secret)
        caller = self._valid.get(digest)
        if caller is not None:
            self._use(caller)
            return caller
        key = await self._store.find(digest)
        if key is None or key.revoked_at is not None:
            raise Unauthenticated("invalid API key", code="AUTH_INVALID")
        if len(self._valid) >= _CACHED_KEYS:
            self._valid.clear()
        caller = self._valid[digest] = Caller(key.organization_id, key.id, key.admin, key.project_id)
        self._use(caller)
        return caller

    async def is_valid(self, key_id: str) -> bool:
        """Whether there is a key of that id that is not revoked."""
        key = await self._store.get(key_id)
        return key is not None and key.revoked_at is None

    def while_valid(self, key_id: str) -> AbstractAsyncContextManager[None]:
        """Cancel the block as soon as the key is revoked. Raises Unauthenticated then."""
        return self.revocations.while_valid(key_id)

    async def turn(self) -> None:
        """Wait until keys were used, then record it, in one write. Raises StoreUnavailable: it is recorded with the next."""
        await self._used.wait()
        uses = dict(self._to_record)
        await self._store.use(uses)
        self._to_record = {key: at for key, at in self._to_record.items() if at != uses.get(key)}
        if not self._to_record:
            self._used.clear()

    async def create(self, caller: Caller, *, organization: str | None, name: str, admin: bool) -> tuple[Key, str]:
        """Make a key in an organization (made when missing; None: the caller's own). The secret is returned once."""
        _needs_admin(caller)
        if organization is None:
            own = await self._store.of(caller.organization_id)
            organization = own[0].organization if own else DEFAULT_ORGANIZATION
        for field, value in (("organization", organization), ("name", name)):
            if len(value) > self._limits.name_chars or (value and not _NAME.fullmatch(value)):
                raise Invalid(
                    f"{field} must be 1 to {self._limits.name_chars} letters, digits, spaces, dots, dashes, underscores",
                    location=f"body.{field}",
                )
        if not organization:
            raise Invalid("organization must not be empty", location="body.organization")
        secret = new_secret()
        return await self._make(organization, name, secret, admin=admin), secret

    async def list(self, caller: Caller) -> list[Key]:
        """Return the organization's keys; an admin sees all."""
        return await self._store.of(None if caller.admin else caller.organization_id)

    async def revoke(self, caller: Caller, key_id: str) -> Key:
        """Revoke a key at once: streams and connections that it has let in end."""
        _needs_admin(caller)
        key = await self._store.revoke(None, key_id, self._clock.now())
        if key is None:
            raise NotFound("no such key")
        self._forget(key_id)
        return key

    async def create_for_project(
        self, organization_id: str, project_id: str, name: str
    ) -> tuple[Key | KeyRefusal, str]:
        """Make a key that may use one project only. The secret is returned once."""
        secret = _new_project_secret()
        key = Key(
            id=self._new_id(),
            organization_id=organization_id,
            organization="",
            name=name,
            admin=False,
            prefix=secret[:_SHOWN_CHARS],
            created_at=self._clock.now(),
            project_id=project_id,
            last_four=secret[-_LAST_CHARS:],
        )
        made = await self._store.create_for_project(key, _digest(secret), most=self._limits.keys_per_project)
        return made, secret

    async def of_project(self, project_id: str) -> Sequence[Key]:
        """Return a project's keys, oldest first."""
        return await self._store.of_project(project_id)

    async def of_organization(self, organization_id: str) -> Sequence[Key]:
        """Return an organization's keys, those of its projects included, oldest first."""
        return await self._store.of(organization_id)

    async def project_of(self, key_id: str) -> str:
        """Return the project that a key is for. Raises NotFound when it is for none."""
        key = await self._store.get(key_id)
        if key is None or key.project_id is None:
            raise NotFound("no such key")
        return key.project_id

    async def revoke_of_project(self, key_id: str) -> None:
        """Revoke a project's key at once, as `revoke` does."""
        await self._store.revoke(None, key_id, self._clock.now())
        self._forget(key_id)

    async def _make(self, organization: str, name: str, secret: str, *, admin: bool) -> Key:
        now = self._clock.now()
        key = Key(
            id=self._new_id(),
            organization_id=await self._store.ensure_organization(organization, now),
            organization=organization,
            name=name,
            admin=admin,
            prefix=secret[:_SHOWN_CHARS],
            created_at=now,
        )
        return await self._store.create(key, _digest(secret))

    def _new_id(self) -> str:
        return f"key-{UUID(bytes=self._clock.random(16), version=4)}"

    def _use(self, caller: Caller) -> None:
        if caller.project_id is None:
            return
        now = self._clock.now()
        last = self._uses.get(caller.key_id)
        if last is None or now - last >= USE_KEPT_US:
            self._uses[caller.key_id] = self._to_record[caller.key_id] = now
            self._used.set()

    def _forget(self, key_id: str) -> None:
        self._uses.pop(key_id, None)
        self._valid = {digest: known for digest, known in self._valid.items() if known.key_id != key_id}
        self.revocations.announce(key_id)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _new_project_secret() -> str:
    return "sk_" + "".join(secrets.choice(_LETTERS) for _ in range(_PROJECT_SECRET_CHARS))


def _needs_admin(caller: Caller) -> None:
    if not caller.admin:
        raise Forbidden("this needs an admin key", code="AUTH_SCOPE_FORBIDDEN")
