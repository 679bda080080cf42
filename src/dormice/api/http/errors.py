"""The one place that turns errors into HTTP.

Two shapes, as the contract wants them: coded JSON for 401, 403, 409, 429 and 503, `application/problem+json` for the rest.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from dormice.api.http.wire import CodedError, Problem, ProblemDetail
from dormice.domain.errors import (
    Conflict,
    DormiceError,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from dormice.api.http.asgi import Scope

_log = logging.getLogger("dormice.api")

CODED_STATUS: Mapping[type[DormiceError], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    Conflict: 409,
    RateLimited: 429,
    Unavailable: 503,
}
_DEFAULT_RETRY_MS = 250
_TRANSIENT = frozenset({408, 500})
# A retry would carry the same If-Match: it can never succeed.
_RETRYABLE_BUT_NOT_AS_IS = "REVISION_MISMATCH"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: what and how to mend it, where, and the value unless it may be secret."""

    message: str
    location: str
    value: int | float | None = None


class InvalidRequest(Invalid):
    """Bad input with several faults."""

    def __init__(self, faults: Sequence[Fault], *, status: int = 422) -> None:
        super().__init__("; ".join(fault.message for fault in faults), location=faults[0].location, status=status)
        self.faults = tuple(faults)


class HttpProblem(Invalid):
    """Bad input whose answer needs headers of its own (416: Content-Range)."""

    def __init__(self, message: str, *, status: int, headers: Mapping[str, str], location: str = "") -> None:
        super().__init__(message, location=location, status=status)
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Answer:
    """An error as HTTP."""

    status: int
    media_type: str
    headers: dict[str, str]
    body: bytes


def describe(error: Exception) -> Answer:
    """Translate an error. What is not ours is a bug: 500, without a word about it."""
    match error:
        case Invalid():
            return _invalid(error)
        case NotFound():
            return problem(404, error.message)
        case DormiceError():
            return _coded(error)
        case _:
            return problem(500, "an error of the server's own; its log has the details under this x-request-id")


def problem(status: int, detail: str, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None) -> Answer:
    """Return an RFC 9457 problem."""
    body = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=[ProblemDetail(fault.message, fault.location, fault.value) for fault in faults] or None,
    )
    extra = dict(headers or {})
    if status not in _TRANSIENT:
        extra["x-should-retry"] = "false"
    if status == 408:
        extra["connection"] = "close"
    return Answer(status, "application/problem+json", extra, msgspec.json.encode(body))


def _invalid(error: Invalid) -> Answer:
    faults: Sequence[Fault] = ()
    if isinstance(error, InvalidRequest):
        faults = error.faults
    elif error.location:
        faults = (Fault(error.message, error.location),)
    return problem(error.status, error.message, faults, error.headers if isinstance(error, HttpProblem) else None)


def _coded(error: DormiceError) -> Answer:
    status = next((code for kind, code in CODED_STATUS.items() if isinstance(error, kind)), 503)
    retry_after_ms = error.retry_after_ms
    headers: dict[str, str] = {}
    if not error.retryable or error.code == _RETRYABLE_BUT_NOT_AS_IS:
        headers["x-should-retry"] = "false"
    else:
        retry_after_ms = retry_after_ms or _DEFAULT_RETRY_MS
        headers["retry-after-ms"] = str(retry_after_ms)
        headers["retry-after"] = str(math.ceil(retry_after_ms / 1000))
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="dormice"'
    body = CodedError(
        error_code=error.code,
        message=error.message,
        retryable=error.retryable,
        retry_after_ms=retry_after_ms,
        details=error.details or None,
    )
    return Answer(status, "application/json", headers, msgspec.json.encode(body))


def describe_and_log(scope: Scope, error: Exception) -> Answer:
    """Translate what a request raised; a bug is logged here and nowhere else."""
    answer = describe(error)
    if answer.status == 500:
        fields = {"request_id": scope["state"].get("request_id", ""), "method": scope["method"]}
        _log.error("a request met a bug", exc_info=error, extra=fields)
    return answer
