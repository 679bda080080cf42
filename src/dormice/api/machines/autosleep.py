"""How clients write the idle time after which a machine goes to sleep: `30m`, `1w3d`, `1800`, `never`."""

from __future__ import annotations

import re

NEVER = "never"
PATTERN = r"^(never|[0-9]{1,9}|(?=[0-9])([0-9]{1,4}w)?([0-9]{1,5}d)?([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?)$"
"""For the OpenAPI document: what is surely below the limit."""
_UNITS = re.compile(
    r"(?:([0-9]{1,10})w)?(?:([0-9]{1,10})d)?(?:([0-9]{1,10})h)?(?:([0-9]{1,10})m)?(?:([0-9]{1,10})s)?", re.ASCII
)
_SECONDS = (604_800, 86_400, 3_600, 60, 1)
_PLAIN = re.compile(r"[0-9]{1,10}", re.ASCII)


def autosleep_seconds(text: str) -> int | None:
    """Return the seconds that are meant, 0 for never, None when the text is not of the grammar."""
    if text == NEVER:
        return 0
    if _PLAIN.fullmatch(text):
        return int(text)
    match = _UNITS.fullmatch(text)
    if match is None or not text:
        return None
    return sum(int(count) * unit for count, unit in zip(match.groups(), _SECONDS, strict=True) if count)
