"""What has ended a short while ago."""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED = 10_000
"""Ids that are remembered, at most."""


class Ended:
    """The ids of what ended last: commits are not heard of in their order, and what is heard late of these is old."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, id_: object) -> bool:
        return id_ in self._ids

    def add(self, id_: str) -> None:
        """Remember one, and forget the first if there are too many."""
        self._ids[id_] = None
        if len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)
