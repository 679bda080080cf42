"""TLS to a port of a machine. Nobody's identity is checked: what answers is whatever the machine runs, on its own loopback."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Self

from dormice.domain.errors import Unavailable

if TYPE_CHECKING:
    from dormice.engine.port_connections import PlainConnection

HANDSHAKE_SECONDS = 5.0
_PIECE_BYTES = 65_536
_ANSWERS_BYTES = 65_536
"""Of what TLS itself wants to say while nothing is written, at most."""


class NoTls(Unavailable):
    """What listens on the port speaks no TLS, or another one than we do."""


class TlsConnection:
    """A connection over another one."""

    def __init__(self, under: PlainConnection, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, out: ssl.MemoryBIO) -> None:
        self._under = under
        self._tls = tls
        self._incoming = incoming
        self._outgoing = out

    @classmethod
    async def made(cls, under: PlainConnection) -> Self:
        """Shake hands. Raises NoTls."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = _context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        connection = cls(under, tls, incoming, outgoing)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await connection._shake_hands()
        except TimeoutError:
            raise NoTls("no TLS with what listens on the port: it does not answer a handshake") from None
        except ssl.SSLError as error:
            raise NoTls(f"no TLS with what listens on the port: {error.reason or error}") from None
        return connection

    @property
    def quiet(self) -> bool:
        return self._under.quiet and not self._incoming.pending and not self._tls.pending()

    async def read(self) -> bytes:
        try:
            while self._outgoing.pending <= _ANSWERS_BYTES:
                try:
                    return self._tls.read(_PIECE_BYTES)
                except ssl.SSLWantReadError:
                    # What TLS answers to what it has read goes out before what is written next, which is soon enough: to wait
                    # for it here would be to read nothing from a port that reads nothing itself as long as it is not read from.
                    await self._feed()
        except ssl.SSLError:  # its end, in order or not: HTTP tells what is missing
            pass
        return b""

    async def write(self, data: bytes) -> None:
        try:
            self._tls.write(data)
        except ssl.SSLError:  # ended by the other side, which reading tells
            return
        await self._flush()

    def close(self) -> None:
        self._under.close()

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            else:
                await self._flush()
                return

    async def _feed(self) -> None:
        if data := await self._under.read():
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._under.write(data)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.options |= ssl.OP_NO_RENEGOTIATION  # reading would have to write, and writing to read
    context.set_alpn_protocols(["http/1.1"])
    return context
