# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""Requests to one server: headers, idempotency keys, retries, errors. Knows no record: bytes go in and out."""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from itertools import count
from typing import Any, NamedTuple, TypeVar

from dormice.client import retries, routes
from dormice.client._async.pause import sleep
from dormice.client.errors import APIConnectionError, APIResponseError, APIStatusError, status_error
from dormice.client.settings import ClientSettings
from dormice.client.transport import AsyncResponse, AsyncTransport, Request, Timeout

_Answer = TypeVar("_Answer")

_KEYED = frozenset({"POST", "PATCH", "DELETE"})
_LONG_POLL_MARGIN = 15.0
_EVERY_REQUEST = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "dormice-python"}


class Reply(NamedTuple):
    """A good answer, whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The decoded content. Raises APIResponseError if it is not JSON."""
        try:
            return json.loads(self.content)
        except ValueError:
            raise APIResponseError("the server's answer is not JSON: is the base URL right?") from None


class AsyncConnection:
    """Sends requests to one server with one key."""

    def __init__(
        self, settings: ClientSettings, transport: AsyncTransport, *, timeout: Timeout, max_retries: int
    ) -> None:
        self.settings = settings
        self.transport = transport
        self.timeout = timeout
        self.max_retries = max_retries

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | bool | None] | None = None,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Reply:
        """The whole answer, after at most `max_retries` further tries.

        Fields of `body` that are None are left out. A POST, PATCH or DELETE carries `idempotency_key`, or one made
        here, in every try. Raises APIStatusError, APIConnectionError or APIResponseError, and ValueError for a header
        that cannot be sent.
        """
        request = self._request(
            method,
            path,
            query or {},
            headers=headers or {},
            body=body,
            content=content,
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return await self._retrying(request, self._exchange)

    async def open(
        self, path: str, *, query: Mapping[str, str | int | bool | None], headers: Mapping[str, str]
    ) -> AsyncResponse:
        """A good answer to a GET, its body still to be read. The caller closes it. Raises as `call` does."""
        return await self._retrying(self._request("GET", path, query, headers=headers), self._opened)

    async def upload(
        self,
        path: str,
        pieces: AsyncIterable[bytes],
        *,
        query: Mapping[str, str | int | bool | None],
        size: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> Reply:
        """The whole answer to a PUT whose body is sent as it comes, once. `size`: its bytes, if that is known. Raises as `call` does."""
        headers = {"content-type": "application/octet-stream"}
        if size is not None:
            headers["content-length"] = str(size)
        request = self._request("PUT", path, query, headers=headers, timeout=timeout)
        return await self._exchange(request._replace(pieces=pieces))

    async def aclose(self) -> None:
        await self.transport.aclose()

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int | bool | None],
        *,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Request:
        every = {**_EVERY_REQUEST, **self.settings.headers()}
        if body is not None:
            content = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
            every["content-type"] = "application/json"
        if method in _KEYED:
            every["idempotency-key"] = idempotency_key or os.urandom(16).hex()
        every.update(headers)
        for name, value in every.items():
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"{name} holds characters that no header can carry")
        url = self.settings.base_url + routes.with_query(path, query)
        return Request(method, url, every, content or b"", self._patience(timeout, query.get("wait_ms")))

    def _patience(self, timeout: float | Timeout | None, wait_ms: str | int | None) -> Timeout:
        """The timeout asked for, and never less than a long poll takes."""
        if timeout is None:
            connect, read = self.timeout
        elif isinstance(timeout, Timeout):
            connect, read = timeout
        else:
            connect, read = min(timeout, self.timeout.connect), float(timeout)
        return Timeout(connect, max(read, int(wait_ms) / 1000 + _LONG_POLL_MARGIN) if wait_ms else read)

    async def _retrying(self, request: Request, once: Callable[[Request], Awaitable[_Answer]]) -> _Answer:
        for attempt in count():
            try:
                return await once(request)
            except APIStatusError as error:
                if attempt >= self.max_retries or not retries.may_retry(error.status_code, error.headers):
                    raise
                hints = error.headers
            except APIConnectionError:
                if attempt >= self.max_retries:
                    raise
                hints = {}
            await sleep(retries.delay(attempt, hints, jitter=random.random()))  # noqa: S311 - not a secret
        raise AssertionError("count() ends never")

    async def _exchange(self, request: Request) -> Reply:
        response = await self._opened(request)
        try:
            return Reply(response.status, response.headers, await response.read())
        finally:
            await response.aclose()

    async def _opened(self, request: Request) -> AsyncResponse:
        response = await self.transport.send(request)
        if 200 <= response.status < 300:
            return response
        try:
            content = await response.read()
        finally:
            await response.aclose()
        if response.status < 400:
            raise APIResponseError(f"unexpected status {response.status}: is the base URL right?")
        raise status_error(response.status, response.headers, content)
