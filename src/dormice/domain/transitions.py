"""The one interpreter of every state table.

A table maps state -> event -> next state. What is not in the table is illegal: it raises, names both, and changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class IllegalTransition(Exception):
    """The event is not legal in the state. Nothing was changed."""

    def __init__(self, state: StrEnum, event: StrEnum) -> None:
        super().__init__(f"{type(state).__name__} {state.value!r} does not allow {event.value!r}")
        self.state = state
        self.event = event


def follow(table: Mapping[S, Mapping[E, S]], state: S, event: E) -> S:
    """Return the state that `event` leads to from `state`. Raises IllegalTransition."""
    try:
        return table[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None
