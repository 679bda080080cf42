"""Lists, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping
from typing import Generic, TypeVar

from dormice.client._async.connection import AsyncConnection
from dormice.client.records import PageBody, decode

_Record = TypeVar("_Record")


class AsyncPage(Generic[_Record]):
    """One page. Iterating over it goes on through all pages after it."""

    def __init__(self, pages: AsyncPaginator[_Record], body: PageBody[_Record]) -> None:
        self._pages = pages
        self.items = body.items
        self.next_cursor = body.next_cursor

    def has_next_page(self) -> bool:
        """Whether there may be more. An empty page ends the walk, whatever cursor it carries."""
        return bool(self.next_cursor and self.items)

    async def get_next_page(self) -> AsyncPage[_Record]:
        """The page after this one. Raises RuntimeError if there is none."""
        if not self.has_next_page():
            raise RuntimeError("this is the last page; ask has_next_page() first")
        return await self._pages.page(self.next_cursor)

    async def __aiter__(self) -> AsyncIterator[_Record]:
        page = self
        while True:
            for item in page.items:
                yield item
            if not page.has_next_page():
                return
            page = await page.get_next_page()


class AsyncPaginator(Generic[_Record]):
    """A list that was asked for: `await` it for its first page, or iterate over all its items."""

    def __init__(
        self,
        connection: AsyncConnection,
        record: type[_Record],
        path: str,
        query: Mapping[str, str | int | bool | None],
    ) -> None:
        self._connection, self._record, self._path, self._query = connection, record, path, query

    async def page(self, cursor: str | None = None) -> AsyncPage[_Record]:
        """The page that begins at `cursor`, or else where the list was asked to begin."""
        query = self._query if cursor is None else {**self._query, "cursor": cursor}
        reply = await self._connection.call("GET", self._path, query=query)
        return AsyncPage(self, decode(reply.content, PageBody[self._record]))  # type: ignore[name-defined]

    def __await__(self) -> Generator[object, None, AsyncPage[_Record]]:
        return self.page().__await__()

    async def __aiter__(self) -> AsyncIterator[_Record]:
        async for item in await self.page():
            yield item


def paginate(
    connection: AsyncConnection, record: type[_Record], path: str, **query: str | int | bool | None
) -> AsyncPaginator[_Record]:
    return AsyncPaginator(connection, record, path, query)
