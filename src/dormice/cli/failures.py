"""What went wrong, in one line for people or one JSON object for programs, on stderr.

Exit codes: 1 the server refused or failed, 2 wrong usage, 3 no server or no key. `dormice exec` has its own.
"""

from __future__ import annotations

import json
import sys

from dormice.client.errors import APIConnectionError, APIStatusError, ConfigurationError, DormiceError

UNREACHABLE = 3

_HINTS = {
    "AUTH_REQUIRED": "set DORMICE_API_KEY",
    "AUTH_INVALID": "look at DORMICE_API_KEY",
    "AUTH_ORG_MISMATCH": "look at DORMICE_ORG_ID",
    "UNAUTHORIZED": "look at DORMICE_API_KEY",
    "PROJECT_ACCESS_FORBIDDEN": "look at --project and DORMICE_PROJECT_ID",
    "RATE_LIMITED": "try again in a moment",
    "DEPENDENCY_UNAVAILABLE": "ask <base URL>/readyz which part is not ready",
}
"""What the server's own message cannot know: it says already what is wrong."""


def report(error: DormiceError, *, as_json: bool, failure_code: int) -> int:
    """Print the error and return the exit code."""
    code, hint = _describe(error)
    if as_json:
        fields: dict[str, object] = {"code": code, "message": str(error), "hint": hint}
        if isinstance(error, APIStatusError):
            fields["status"] = error.status_code
            fields["retryable"] = error.retryable
        print(json.dumps({"error": fields}), file=sys.stderr)
    else:
        print(f"dormice: {code}: {error}" + (f"; {hint}" if hint else ""), file=sys.stderr)
    unreachable = isinstance(error, APIConnectionError | ConfigurationError)
    return UNREACHABLE if unreachable and failure_code == 1 else failure_code


def _describe(error: DormiceError) -> tuple[str, str | None]:
    """A code and what may help."""
    match error:
        case APIStatusError():
            code = error.error_code or f"HTTP {error.status_code}"
            return code, _HINTS.get(code)
        case ConfigurationError():
            return "NOT_CONFIGURED", None
        case APIConnectionError():
            return "UNREACHABLE", "is the server running (dormice up), and does DORMICE_BASE_URL name it?"
        case _:
            return "UNEXPECTED_ANSWER", None
