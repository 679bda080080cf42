"""Entity tags: a machine's revision in quotes."""

from __future__ import annotations


def etag(revision: int) -> str:
    """Return the ETag of a revision."""
    return f'"{revision}"'


def wanted_revision(if_match: str | None) -> str | None:
    """Return the revision that If-Match asks for, None when any will do. Quotes and `W/` are optional."""
    if if_match is None:
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    return None if text in {"", "*"} else text
