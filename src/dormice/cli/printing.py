"""Records on stdout: lines and tables for people, JSON for programs.

`--json` prints one document for one record, and for a list one document a line, as the pages come.
Tables are plain columns that are never cut, so that ids can be copied and piped. What no terminal shows is never sent to
one: names of files come from machines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dormice.client._sync.connection import Connection

Record = Mapping[str, Any]
Columns = Mapping[str, Callable[[Record], object]]


def json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON: one document, or one a line for a list")


def list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, metavar="N", help="items to a page")
    parser.add_argument("--cursor", help="begin at the next_cursor of a page")
    parser.add_argument("--max-items", type=int, metavar="N", help="stop after so many items")


def pages(
    connection: Connection,
    path: str,
    arguments: argparse.Namespace,
    /,
    *,
    name: str = "items",
    **query: str | bool | None,
) -> Iterator[list[Record]]:
    """The pages of a list up to `--max-items`; `name` is its field in the answer."""
    return (page[name] for page in answers(connection, path, arguments, name=name, **query))


def answers(
    connection: Connection, path: str, arguments: argparse.Namespace, /, *, name: str, **query: str | bool | None
) -> Iterator[dict[str, Any]]:
    """The same with all that an answer holds. The walk ends at a page without a cursor."""
    left = arguments.max_items
    cursor = arguments.cursor
    while left is None or left > 0:
        asked = {"limit": arguments.limit, "cursor": cursor, **query}
        page = connection.call("GET", path, query=asked).json()
        page[name] = page[name][:left]
        yield page
        cursor = page.get("next_cursor")
        if not cursor:
            return
        left = left and left - len(page[name])


def show(record: Record, *, as_json: bool) -> None:
    """One record: its fields, a line each, those without a value left out."""
    if as_json:
        print(json.dumps(record))
        return
    fields = {name: value for name, value in record.items() if value not in (None, {}, [])}
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name:{width}}  {value if isinstance(value, str) and value.isprintable() else json.dumps(value)}")


def show_pages(pages: Iterable[list[Record]], columns: Columns, *, as_json: bool) -> None:
    """A list, each page as it comes. Its first records decide how wide its columns are."""
    widths: list[int] = []
    for page in pages:
        if as_json:
            lines = [json.dumps(record) for record in page]
        else:
            rows = [[_cell(value(record)) for value in columns.values()] for record in page]
            if rows and not widths:
                rows.insert(0, _head(columns))
                widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        if lines:
            print("\n".join(lines), flush=True)
    if not widths and not as_json:
        print("  ".join(_head(columns)))


def _head(columns: Columns) -> list[str]:
    return [name.upper() for name in columns]


def _cell(value: object) -> str:
    return "-" if value is None else printable(" ".join(str(value).split()))


def printable(text: str) -> str:
    """Return the text with a question mark for each character that a terminal would not show, or would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)
