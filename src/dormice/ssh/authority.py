"""Two keys that sign others: users' keys, which the SSH server takes, and its own host key, by which clients know it.

Both are made at the first start and stay in the server's directory, mode 0600. Losing them costs the open sessions, no more.
"""

from __future__ import annotations

import os
from pathlib import Path

import asyncssh

from dormice.domain.errors import Invalid
from dormice.domain.execution import Micros
from dormice.domain.limits import SECOND_US, Limits
from dormice.engine.ssh_sessions import SshDoor

_ALGORITHM = "ssh-ed25519"
_TAKEN = (b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521", b"ssh-rsa")
_SKEW_SECONDS = 300
"""How far a client's clock may be behind ours."""
_SSH_PORT = 22
_LOCATION = "body.public_key"


class BrokenAuthority(Exception):
    """A key file is damaged, or others may read it."""


class Authority:
    """Signs. Made from the key files in a directory, which are made if they are missing."""

    def __init__(self, directory: Path, limits: Limits, *, endpoint: str, port: int) -> None:
        """Raises BrokenAuthority, OSError."""
        self._limits = limits
        self._users = _load(directory / "ssh-user-authority")
        hosts = _load(directory / "ssh-host-authority")
        host_key = asyncssh.generate_private_key(_ALGORITHM)
        # Of this process alone, so that it needs no end: with the process the key is gone.
        certificate = hosts.generate_host_certificate(host_key, endpoint, principals=[endpoint])
        self.host_keys = (host_key, certificate)
        self.door = SshDoor(
            endpoint=endpoint,
            port=port,
            host_pattern=endpoint if port == _SSH_PORT else f"[{endpoint}]:{port}",
            host_authority=_line(hosts),
        )

    def certify(self, public_key: str, session_id: str, *, begin: Micros, end: Micros) -> str:
        """Return a certificate for a user's key. Raises Invalid."""
        certificate = self._users.generate_user_certificate(
            self._checked(public_key),
            session_id,
            principals=[session_id],
            valid_after=begin // SECOND_US - _SKEW_SECONDS,
            valid_before=-(-end // SECOND_US),
            permit_x11_forwarding=False,
            permit_agent_forwarding=False,
            permit_user_rc=False,
            comment=session_id,
        )
        return certificate.export_certificate().decode().strip()

    def has_signed(self, key: asyncssh.SSHKey) -> bool:
        """Whether this is the key that signs users' keys."""
        return key.public_data == self._users.public_data

    def _checked(self, public_key: str) -> asyncssh.SSHKey:
        limits, line = self._limits, public_key.strip()
        if len(line.encode()) > limits.public_key_bytes:
            raise Invalid(
                f"public_key must have at most {limits.public_key_bytes} bytes (public_key_bytes)", location=_LOCATION
            )
        if len(line.splitlines()) != 1 or not line.isprintable():
            raise Invalid("public_key must be one line, as in a file ending in .pub", location=_LOCATION)
        try:
            key = asyncssh.import_public_key(line)
        except (asyncssh.KeyImportError, ValueError):
            raise Invalid(
                "public_key is no key that OpenSSH has written: send the line of a file ending in .pub",
                location=_LOCATION,
            ) from None
        if key.algorithm not in _TAKEN:
            raise Invalid("public_key must be of type ed25519, ecdsa or rsa", location=_LOCATION)
        if key.algorithm == b"ssh-rsa" and _bits(key) < limits.rsa_bits_min:
            raise Invalid(
                f"public_key must have at least {limits.rsa_bits_min} bits, being of type rsa (rsa_bits_min)",
                location=_LOCATION,
            )
        return key


def _bits(key: asyncssh.SSHKey) -> int:
    public: object = key.pyca_key
    return int(getattr(public, "key_size", 0))


def _line(key: asyncssh.SSHKey) -> str:
    """The public half, without a comment."""
    return " ".join(key.export_public_key().decode().split()[:2])


def _load(path: Path) -> asyncssh.SSHKey:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _make(path)
    with os.fdopen(file, "rb") as stream:
        if os.fstat(file).st_mode & 0o077:
            raise BrokenAuthority(f"{path.name} may be read by others: make its mode 0600")
        text = stream.read()
    try:
        return asyncssh.import_private_key(text)
    except (asyncssh.KeyImportError, ValueError):
        raise BrokenAuthority(
            f"{path.name} is no private key: restore it, or delete it, which ends every SSH session"
        ) from None


def _make(path: Path) -> asyncssh.SSHKey:
    """Write a new key beside its place and move it there, so that no crash leaves half a key."""
    key = asyncssh.generate_private_key(_ALGORITHM)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(key.export_private_key())
        stream.flush()
        os.fsync(file)
    draft.rename(path)
    return key
