"""What callers ask of the engine: values checked for form by the API, judged by the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dormice.domain.egress import Egress
from dormice.domain.execution import StdinMode
from dormice.domain.preview import PreviewProtocol, Visibility


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the organization and key behind a valid API key."""

    organization_id: str
    key_id: str
    admin: bool
    project_id: str | None = None
    """The one project that the key may use; None: all that is the organization's."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """An Idempotency-Key, its scope (method and path) and the request in canonical bytes."""

    scope: str
    key: str
    request: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOrder:
    """A command to be run. `env` and `stdin` are secrets."""

    command: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    stdin_mode: StdinMode = StdinMode.EMPTY
    stdin: bytes = field(default=b"", repr=False)
    timeout_ms: int | None = None
    start_timeout_ms: int | None = None
    artifacts: tuple[str, ...] = ()
    """Patterns of files to be kept once it has ended, absolute or from `cwd` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalOrder:
    """A terminal to be opened. `env` is a secret."""

    width: int
    """Columns, 1 to 65535."""
    height: int
    """Rows, 1 to 65535."""
    command: tuple[str, ...]
    """The shell, and its arguments."""
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOrder:
    """A machine to be made; None takes the default."""

    vcpu: float | None = None
    memory_mib: int | None = None
    storage_gib: int | None = None
    image: str | None = None
    autosleep_seconds: int | None = None
    egress: Egress | None = None
    snapshot: str | None = None
    """What its disk begins as a copy of, in place of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePatch:
    """What of a machine is to change; None leaves it."""

    vcpu: float | None = None
    memory_mib: int | None = None
    storage_gib: int | None = None
    autosleep_seconds: int | None = None
    egress: Egress | None = None
    autoresizing: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOrder:
    """A port of a machine to be served."""

    port: int
    protocol: PreviewProtocol = PreviewProtocol.HTTP
    visibility: Visibility = Visibility.PRIVATE
    lifetime_seconds: int | None = None
    """How long it is open; None takes the default."""
