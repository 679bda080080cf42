"""One byte range of a representation (RFC 9110, section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from dormice.api.http.errors import HttpProblem


@dataclass(frozen=True, slots=True)
class Ranged:
    """The part of a representation that an answer has: start <= offset < end."""

    start: int
    end: int
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """All that says which part it is."""


_ONE_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return start and end (exclusive) of the range asked for, None for the whole.

    What is no single byte range is passed over, as the RFC allows. Raises Invalid (416) when it holds no byte.
    """
    match = _ONE_RANGE.fullmatch(header) if header is not None else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= end:
        raise HttpProblem(
            f"the range holds no byte: there are {size}",
            status=416,
            headers={"content-range": f"bytes */{size}"},
            location="header.Range",
        )
    return start, end


def ranged(header: str | None, if_range: str | None, size: int, tag: str | None = None) -> Ranged:
    """Return what of a representation is to be answered. Without a `tag` of ours, If-Range can never match: the whole is sent.

    Raises Invalid (416) as `byte_range` does.
    """
    wanted = byte_range(header, size) if if_range in (None, tag) else None
    start, end = wanted or (0, size)
    headers = {"accept-ranges": "bytes", "content-length": str(end - start), "x-content-type-options": "nosniff"}
    if tag is not None:
        headers["etag"] = tag
    if wanted is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    return Ranged(start, end, 200 if wanted is None else 206, headers)
