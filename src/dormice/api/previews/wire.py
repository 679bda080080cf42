"""Previews on the wire: under that name, and as ports, which are the same without `visibility`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dormice.api.machines.wire import Time, time
from dormice.domain.execution import ErrorCode
from dormice.domain.limits import Limits
from dormice.domain.preview import Preview, PreviewProtocol, PreviewState, Visibility


class CreatePreviewRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A port to be served."""

    port: Annotated[int, Meta(description="From 1 to 65535, on the machine's loopback.")]
    protocol: Annotated[
        PreviewProtocol | None,
        Meta(description="What is spoken with the port; with `https` its certificate is not checked. Default `http`."),
    ] = None
    visibility: Annotated[
        Visibility | None,
        Meta(
            description="`private` (default): the key that made it; `org`: every key of the organization; both let in by signed "
            "links as well. `public`: whoever knows the address."
        ),
    ] = None
    expires_in_seconds: Annotated[int | None, Meta(description="How long it is open.")] = None


class CreatePortRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A port to be served, as a private preview."""

    port: Annotated[int, Meta(description="From 1 to 65535, on the machine's loopback.")]
    protocol: Annotated[PreviewProtocol | None, Meta(description="What is spoken with the port. Default `http`.")] = (
        None
    )


class CreateLinkRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A signed link to be made."""

    expires_in_seconds: Annotated[
        int | None, Meta(description="How long it lets in, and the browsers that came by it. Default one hour.")
    ] = None


class PreviewRecord(Struct, omit_defaults=True, kw_only=True):
    """A port of a machine that is served under an address."""

    preview_id: str
    machine_id: str
    status: PreviewState
    port: int
    visibility: Visibility
    created_at: Time
    protocol: PreviewProtocol
    url: str
    expires_at: Time
    ready_at: Time | None = None
    retry_after_ms: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None


class PreviewPage(Struct, omit_defaults=True, kw_only=True):
    """Previews, newest first."""

    items: list[PreviewRecord]
    next_cursor: str | None = None


class PortRecord(Struct, omit_defaults=True, kw_only=True):
    """A preview under its newer name."""

    port_id: str
    machine_id: str
    status: PreviewState
    port: int
    created_at: Time
    protocol: PreviewProtocol
    url: str
    expires_at: Time
    ready_at: Time | None = None
    retry_after_ms: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None


class PortPage(Struct, omit_defaults=True, kw_only=True):
    """Ports, newest first."""

    items: list[PortRecord]
    next_cursor: str | None = None


class LinkRecord(Struct, kw_only=True):
    """A signed link. Whoever has it is let in: it is a secret until it expires."""

    url: str
    expires_at: Time


def preview(p: Preview, url: str, limits: Limits) -> PreviewRecord:
    """Return a preview's record."""
    waking = p.state is PreviewState.WAKE_IN_PROGRESS
    return PreviewRecord(
        preview_id=p.id,
        machine_id=p.machine_id,
        status=p.state,
        port=p.port,
        visibility=p.visibility,
        created_at=time(p.created_at),
        protocol=p.protocol,
        url=url,
        expires_at=time(p.expires_at),
        ready_at=None if p.ready_at is None else time(p.ready_at),
        retry_after_ms=limits.retry_after_ms if waking else None,
        error_code=p.error_code,
        error_message=p.error_message,
    )


def port(p: Preview, url: str, limits: Limits) -> PortRecord:
    """Return the same as a port."""
    whole = preview(p, url, limits)
    return PortRecord(
        port_id=whole.preview_id,
        machine_id=whole.machine_id,
        status=whole.status,
        port=whole.port,
        created_at=whole.created_at,
        protocol=whole.protocol,
        url=whole.url,
        expires_at=whole.expires_at,
        ready_at=whole.ready_at,
        retry_after_ms=whole.retry_after_ms,
        error_code=whole.error_code,
        error_message=whole.error_message,
    )
