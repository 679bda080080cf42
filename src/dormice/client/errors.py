"""What can go wrong in the client, as one tree.

    DormiceError
    ├── ConfigurationError             no key found, or a base URL that is none
    ├── WaitTimeoutError               (also a TimeoutError) `wait` ran out of the time it was given
    └── APIError
        ├── APIConnectionError         no answer: refused, reset, cut off
        │   └── APITimeoutError        no answer in time
        ├── APIResponseError           an answer that is not what it should be
        ├── TerminalError              a terminal did not take what was sent
        └── APIStatusError             the server said no
            ├── BadRequestError            400
            ├── AuthenticationError        401
            ├── PermissionDeniedError      403
            ├── NotFoundError              404
            ├── ConflictError              409
            ├── UnprocessableEntityError   422
            ├── RateLimitError             429
            └── InternalServerError        500 and above

The server has three shapes of error body: an object with `error_code` for 401, 403, 409, 429 and 503,
`application/problem+json` for the rest, and `error` with `error_type` for workflows. `APIStatusError` reads them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class DormiceError(Exception):
    """Every error of this client."""


class ConfigurationError(DormiceError):
    """The client cannot be made from what it was given."""


class WaitTimeoutError(DormiceError, TimeoutError):
    """The execution had not ended when the time given to `wait` was over. It runs on."""


class APIError(DormiceError):
    """A request that did not come to a good end."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class APIConnectionError(APIError):
    """The server could not be reached, or the connection broke before the answer was whole."""


class APITimeoutError(APIConnectionError):
    """The server did not answer in time."""


class APIResponseError(APIError):
    """The server answered with success and a body that is not what the request promises."""


class TerminalError(APIError):
    """The server did not take what was sent to a terminal: its shell does not read, has ended, or the message was wrong."""

    def __init__(self, message: str, *, code: str | None) -> None:
        super().__init__(message)
        self.code = code
        """Stable upper-snake code such as `INVALID_STATE`."""


class APIStatusError(APIError):
    """The server refused or failed: any status of 400 and above."""

    status_code: int
    error_code: str | None
    """Stable upper-snake code such as `INVALID_STATE`; None for problem+json bodies, which carry none."""
    retryable: bool
    """Whether the same request may succeed later."""
    retry_after_ms: int | None
    details: Mapping[str, str]
    errors: list[Mapping[str, Any]]
    """For a request that does not validate: objects with `message` and `location` (such as `body.command`)."""
    body: object
    """The decoded body, or its text if it is not JSON."""
    headers: Mapping[str, str]
    """Names in lower case."""

    def __init__(self, status_code: int, headers: Mapping[str, str], body: object) -> None:
        fields: Mapping[str, Any] = body if isinstance(body, dict) else {}
        self.status_code = status_code
        self.headers = headers
        self.body = body
        self.error_code = fields.get("error_code") or fields.get("error_type")
        self.retry_after_ms = fields.get("retry_after_ms")
        self.details = fields.get("details") or {}
        self.errors = [error for error in fields.get("errors") or [] if isinstance(error, dict)]
        self.retryable = bool(fields.get("retryable", status_code in {408, 429} or status_code >= 500))
        super().__init__(_message(status_code, fields, self.errors))


def _message(status_code: int, fields: Mapping[str, Any], errors: list[Mapping[str, Any]]) -> str:
    """One line. Values that were refused are left out: they may be secrets."""
    text = str(
        fields.get("message")
        or fields.get("detail")
        or fields.get("error")
        or fields.get("title")
        or f"HTTP status {status_code}"
    )
    where = []
    for error in errors:
        place, message = str(error.get("location", "?")), str(error.get("message", "?"))
        where.append(place if message in text else f"{place}: {message}")
    return f"{text} ({'; '.join(where)})" if where else text


class BadRequestError(APIStatusError):
    """400: the request could not be read."""


class AuthenticationError(APIStatusError):
    """401: no key, or one that is not valid."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this, or belongs to another organization."""


class NotFoundError(APIStatusError):
    """404: it does not exist, or belongs to another organization."""


class ConflictError(APIStatusError):
    """409: the state of the thing, or an idempotency key, forbids it."""


class UnprocessableEntityError(APIStatusError):
    """422: a field is missing, unknown, or out of its range."""


class RateLimitError(APIStatusError):
    """429: too much at once."""


class InternalServerError(APIStatusError):
    """500 and above: the server failed, or something that it depends on."""


_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error(status_code: int, headers: Mapping[str, str], content: bytes) -> APIStatusError:
    """The error that a response of status 400 and above stands for."""
    import json  # noqa: PLC0415 - errors are rare, start-up is not

    try:
        body: object = json.loads(content)
    except ValueError:
        body = content.decode(errors="replace")
    fallback = InternalServerError if status_code >= 500 else APIStatusError
    return _BY_STATUS.get(status_code, fallback)(status_code, headers, body)
