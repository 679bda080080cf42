"""Sealing of secrets before they reach the store, and keyed hashes.

One key file of 32 random bytes, mode 0600, belongs to one store. Everything is derived from it per purpose: a sealing
key for each execution (so random nonces never come near the bound of AES-GCM), the key of request hashes, and a
fingerprint by which a store knows its key file.
"""

from __future__ import annotations

import hmac
import os
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dormice.store.interface import StoreUnavailable

KEY_BYTES = 32
_NONCE_BYTES = 12


class SecretKind(StrEnum):
    """What a sealed record holds."""

    ENV = "env"
    STDIN = "stdin"


class Unsealable(StoreUnavailable):
    """A sealed record, or the key file itself, is damaged or does not belong here."""


class Sealer:
    """Seals with AES-256-GCM; a record opens only for the execution, kind and offset that it was sealed for."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a sealing key has {KEY_BYTES} bytes")
        self._key = key
        self._hash_key = self._derive("request-hash")

    @classmethod
    def load(cls, path: Path, *, make: bool = True) -> Sealer:
        """Read the key file, made (0600, durable) when missing and there is nothing yet that was sealed with another.

        Raises Unsealable when it may not be made, others could read it or it is not a key, OSError when it cannot be read or made.
        """
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if not make:
                raise Unsealable(f"{path.name} is missing, and the store was sealed with it: restore it") from None
            return cls(_make_key(path))
        with os.fdopen(file, "rb") as stream:
            if os.fstat(file).st_mode & 0o077:
                raise Unsealable(f"{path.name} may be read by others: make its mode 0600")
            key = stream.read(KEY_BYTES + 1)
        if len(key) != KEY_BYTES:
            raise Unsealable(f"{path.name} is not a sealing key of {KEY_BYTES} bytes")
        return cls(key)

    def seal(self, execution_id: str, kind: StrEnum, offset: int, secret: bytes) -> bytes:
        """Return nonce and ciphertext. What is no execution's has the id and kind of its own owner."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(execution_id).encrypt(nonce, secret, _binding(execution_id, kind, offset))

    def unseal(self, execution_id: str, kind: StrEnum, offset: int, sealed: bytes) -> bytes:
        """Return the secret. Raises Unsealable."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher(execution_id).decrypt(nonce, text, _binding(execution_id, kind, offset))
        except (InvalidTag, ValueError):
            raise Unsealable(f"the sealed {kind.value} of {execution_id} is damaged") from None

    def request_hash(self, request: bytes) -> str:
        """Return the keyed hash (HMAC-SHA-256, hex) of a request: equal requests compare, none can be guessed."""
        return hmac.digest(self._hash_key, request, "sha256").hex()

    def fingerprint(self) -> bytes:
        """Return what tells this key from another one and nothing else about it."""
        return self._derive("fingerprint")[:16]

    def _derive(self, purpose: str) -> bytes:
        return hmac.digest(self._key, f"dormice:{purpose}".encode(), "sha256")

    def _cipher(self, execution_id: str) -> AESGCM:
        return AESGCM(self._derive(f"seal:{execution_id}"))


def _binding(execution_id: str, kind: StrEnum, offset: int) -> bytes:
    return f"{execution_id}/{kind.value}/{offset}".encode()


def _make_key(path: Path) -> bytes:
    """Write a new key beside its place and link it there, so that no crash leaves half a key."""
    key = os.urandom(KEY_BYTES)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(key)
        stream.flush()
        os.fsync(file)
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return key
