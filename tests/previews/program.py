"""A web server for tests, to be run inside a machine: it needs Python and nothing else, and says on which port it listens.

python3 program.py [certificate]      the certificate, with its key in one file, makes it speak TLS
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import ssl
import sys
from collections.abc import Awaitable, Callable

SEEN: list[str] = []
"""What happened, one word a thing; GET /seen tells."""
FLOOD_FRAMES = 400
"""More than all buffers on the way hold."""
NUMBERS = itertools.count(1)
"""Of connections."""
Head = tuple[str, str, list[tuple[str, str]]]


async def _head(reader: asyncio.StreamReader) -> Head | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    method, target, _ = lines[0].split(" ")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    return method, target, headers


async def _body(reader: asyncio.StreamReader, headers: list[tuple[str, str]]) -> bytes:
    fields = dict(headers)
    if fields.get("transfer-encoding") == "chunked":
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)
    return await reader.readexactly(int(fields.get("content-length", "0")))


def _send(writer: asyncio.StreamWriter, body: bytes, status: str = "200 OK", **headers: str) -> None:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    number = next(NUMBERS)
    try:
        while (head := await _head(reader)) is not None and await _answer(number, head, reader, writer):
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        SEEN.append("cut")
    finally:
        writer.close()


async def _answer(number: int, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer a request; False ends the connection."""
    method, target, headers = head
    path = target.partition("?")[0]
    if path in PATHS:
        return await PATHS[path](head, reader, writer)
    SEEN.append(target)
    body = await _body(reader, headers)
    said = {"method": method, "target": target, "headers": headers, "connection": number}
    said |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    _send(writer, b"" if method == "HEAD" else json.dumps(said).encode(), X_App="yes")
    return True


async def _seen(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    _send(writer, json.dumps(SEEN).encode())
    return True


async def _events(_head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One event at once, the next when somebody asks for /go, then nothing; the connection's end is noted."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")
    await writer.drain()
    await GO.wait()
    writer.write(b"data: two\n\n")
    await writer.drain()
    await reader.read()
    SEEN.append("listener left")
    return False


async def _go(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    GO.set()
    _send(writer, b"gone\n")
    return True


async def _half(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    await writer.drain()
    return False


async def _half_chunked(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await writer.drain()
    return False


async def _chunked(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n")
    writer.write(b"3\r\nabc\r\n3\r\ndef\r\n0\r\nX-Late: yes\r\n\r\n")
    return True


async def _both_lengths(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    return False


async def _early(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
    _send(writer, b"after hints")
    return True


async def _big(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n")
    for _ in range(80):
        writer.write(bytes(100_000))
        await writer.drain()
    return True


async def _nonsense(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    return False


async def _silent(_head: Head, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bool:
    SEEN.append("asked")
    await reader.read()
    SEEN.append("asker left")
    return False


async def _cookies(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    lines = ["sid=1; Path=/; Domain=example.org; HttpOnly", "deep=2; Path=/deep", "dormice_preview=stolen", "plain=3"]
    text = "".join(f"Set-Cookie: {line}\r\n" for line in lines)
    writer.write(
        f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nService-Worker-Allowed: /\r\nClear-Site-Data: *\r\n{text}\r\n".encode()
    )
    return True


async def _login(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    _send(writer, b"", "302 Found", Location="/inside?x=1")
    return True


async def _not_modified(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\nETag: x\r\n\r\n")
    return True


async def _nothing(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    return True


async def _refused_body(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    _send(writer, b"too much", "413 Payload Too Large")
    return False


async def _expired_connection(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    _send(writer, b"last")
    return False  # without having said so


async def _headers(_head: Head, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    _send(writer, b"", X_Long="x" * 200_000)
    return True


async def _mirror(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Send a body back as it comes, and take no more of it before that is taken."""
    left = int(dict(head[2])["content-length"])
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n".encode())
    while left:
        data = await reader.read(65_536)
        left -= len(data)
        writer.write(data)
        await writer.drain()
    return True


def _shake_hands(fields: dict[str, str], writer: asyncio.StreamWriter) -> None:
    key = fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    writer.write(
        f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n".encode()
    )
    offered = [word.strip() for word in fields.get("sec-websocket-protocol", "").split(",")]
    writer.write(b"Sec-WebSocket-Protocol: chat\r\n\r\n" if "chat" in offered else b"\r\n")


async def _flood(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """A WebSocket that says a lot before it listens, and then listens for as much."""
    _shake_hands(dict(head[2]), writer)
    for _ in range(FLOOD_FRAMES):
        _frame(writer, 2, bytes(65_535))
        await writer.drain()
    left = FLOOD_FRAMES * 65_535
    while left > 0:
        left -= len(await reader.read(1 << 20))
    _frame(writer, 1, b"done")
    await writer.drain()
    await reader.read()
    return False


async def _echo(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """A WebSocket that sends back what it gets, having first told of its handshake."""
    _shake_hands(dict(head[2]), writer)
    _frame(writer, 1, json.dumps({"target": head[1], "headers": head[2]}).encode())
    while True:
        first, second = await reader.readexactly(2)
        size = second & 127
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        mask = await reader.readexactly(4)
        data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(await reader.readexactly(size)))
        if first & 15 == 8:
            SEEN.append(f"closed {int.from_bytes(data[:2], 'big')}")
            _frame(writer, 8, data)
            return False
        if data == b"close me":
            _frame(writer, 8, (4001).to_bytes(2, "big") + b"as you wish")
        else:
            _frame(writer, first & 15, data)
        await writer.drain()


def _frame(writer: asyncio.StreamWriter, kind: int, data: bytes) -> None:
    size = len(data)
    if size < 126:
        length = bytes([size])
    elif size < 65_536:
        length = bytes([126]) + size.to_bytes(2, "big")
    else:
        length = bytes([127]) + size.to_bytes(8, "big")
    writer.write(bytes([128 | kind]) + length + data)


GO = asyncio.Event()
PATHS: dict[str, Callable[[Head, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]] = {
    "/seen": _seen,
    "/events": _events,
    "/go": _go,
    "/half": _half,
    "/half-chunked": _half_chunked,
    "/chunked": _chunked,
    "/both-lengths": _both_lengths,
    "/early": _early,
    "/big": _big,
    "/nonsense": _nonsense,
    "/silent": _silent,
    "/cookies": _cookies,
    "/login": _login,
    "/not-modified": _not_modified,
    "/nothing": _nothing,
    "/refused-body": _refused_body,
    "/last": _expired_connection,
    "/long-head": _headers,
    "/echo": _echo,
    "/flood": _flood,
    "/mirror": _mirror,
}


async def main() -> None:
    tls = None
    if len(sys.argv) > 1:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[1])
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, ssl=tls)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


asyncio.run(main())
