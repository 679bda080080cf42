"""Every error that a client can meet, and nothing about HTTP.

    DormiceError
    ├── Unauthenticated      AUTH_REQUIRED, AUTH_INVALID
    ├── Forbidden            AUTH_ORG_MISMATCH, AUTH_SCOPE_FORBIDDEN
    ├── Conflict             IDEMPOTENCY_KEY_REUSED, REVISION_MISMATCH, INVALID_STATE
    ├── RateLimited          RATE_LIMITED
    ├── Unavailable          DEPENDENCY_UNAVAILABLE
    ├── NotFound             (no code: an RFC 9457 problem)
    └── Invalid              (no code: an RFC 9457 problem with `errors`)

`code`, `retryable`, `retry_after_ms` and `details` go to the client as they are: no secret may get into them.
api/http/errors.py is the only place that turns them into HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping


class DormiceError(Exception):
    """The root. `retryable` says whether the same request may succeed later."""

    code: str = ""
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after_ms: int | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.details = dict(details or {})


class Unauthenticated(DormiceError):
    """No key, or a key that is not (or no longer) valid."""

    code = "AUTH_INVALID"


class Forbidden(DormiceError):
    """The key is valid but may not do this."""

    code = "AUTH_SCOPE_FORBIDDEN"


class ForeignProject(Forbidden):
    """The key may use another project only."""


class Conflict(DormiceError):
    """The request does not fit the present state."""

    code = "INVALID_STATE"


class MachineConflict(Conflict):
    """The machine's phase does not allow it."""


class RateLimited(DormiceError):
    """Too many requests, or the same key is being worked on."""

    code = "RATE_LIMITED"
    retryable = True


class Unavailable(DormiceError):
    """A part that the request needs is not there just now."""

    code = "DEPENDENCY_UNAVAILABLE"
    retryable = True


class NotFound(DormiceError):
    """Unknown, or somebody else's: the answer is the same."""


class Invalid(DormiceError):
    """Bad input. `location` names the field (`body.command`, `query.limit`), the message the limit and the fix.

    `status` is 422, or 400 for input that could not be parsed, 413, 415, 416 where those say it better.
    """

    def __init__(self, message: str, *, location: str = "", status: int = 422) -> None:
        super().__init__(message)
        self.location = location
        self.status = status
