"""The two shapes of an error on the wire."""

from __future__ import annotations

from msgspec import Struct


class CodedError(Struct, omit_defaults=True, kw_only=True):
    """The answer of 401, 403, 409, 429 and 503."""

    error_code: str
    message: str
    retryable: bool
    retry_after_ms: int | None = None
    details: dict[str, str] | None = None


class ProblemDetail(Struct, omit_defaults=True):
    """One thing wrong with a request. `value` is left out where it may be a secret."""

    message: str
    location: str = ""
    value: int | float | str | None = None


class Problem(Struct, omit_defaults=True, kw_only=True):
    """Every other error: an RFC 9457 problem."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemDetail] | None = None
