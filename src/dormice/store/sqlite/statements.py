"""Loads the named blocks of a `.sql` file: `-- name: word`, a comment with its purpose, one statement."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

_MARK = "-- name: "


def read(file: str) -> str:
    """Return the text of a `.sql` file of this package."""
    return (resources.files(__package__) / file).read_text(encoding="utf-8")


def load(file: str) -> Mapping[str, str]:
    """Return the blocks of a file of this package. Raises ValueError as `parse` does."""
    return parse(file, read(file))


def parse(file: str, text: str) -> Mapping[str, str]:
    """Return name -> statement, comments dropped. Raises ValueError on a block twice."""
    found: dict[str, str] = {}
    for block in text.split(_MARK)[1:]:
        name, _, body = block.partition("\n")
        if name in found:
            raise ValueError(f"{file}: {name} stands there twice")
        lines = (line.strip() for line in body.splitlines())
        found[name.strip()] = " ".join(line for line in lines if line and not line.startswith("--")).removesuffix(";")
    return MappingProxyType(found)
