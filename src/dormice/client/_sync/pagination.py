"""Lists, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from dormice.client._sync.connection import Connection
from dormice.client.records import PageBody, decode

_Record = TypeVar("_Record")


class Page(Generic[_Record]):
    """One page. Iterating over it goes on through all pages after it."""

    def __init__(
        self,
        connection: Connection,
        record: type[_Record],
        path: str,
        query: Mapping[str, str | int | bool | None],
    ) -> None:
        self._connection, self._record, self._path, self._query = connection, record, path, query
        body = decode(connection.call("GET", path, query=query).content, PageBody[record])  # type: ignore[valid-type]
        self.items: list[_Record] = body.items
        self.next_cursor = body.next_cursor

    def has_next_page(self) -> bool:
        """Whether there may be more. An empty page ends the walk, whatever cursor it carries."""
        return bool(self.next_cursor and self.items)

    def get_next_page(self) -> Page[_Record]:
        """The page after this one. Raises RuntimeError if there is none."""
        if not self.has_next_page():
            raise RuntimeError("this is the last page; ask has_next_page() first")
        return Page(self._connection, self._record, self._path, {**self._query, "cursor": self.next_cursor})

    def __iter__(self) -> Iterator[_Record]:
        page = self
        while True:
            yield from page.items
            if not page.has_next_page():
                return
            page = page.get_next_page()


def paginate(
    connection: Connection, record: type[_Record], path: str, **query: str | int | bool | None
) -> Page[_Record]:
    return Page(connection, record, path, query)
