"""Pushes over TLS, and to the HTTP server that workers of the foreign SDK have."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dormice.outbound.http_connection import HttpConnection
from dormice.outbound.targets import Address
from dormice.workers.push import CancelAnswer, PushAnswer, PushClient, PushPolicy
from tests.wait import others_run, wait_until, wait_until_async
from tests.workers.fake_worker import FakeWorker, keeps_silent

LOCAL = PushPolicy(loopback=True)
IMPATIENT = PushPolicy(loopback=True, timeout_seconds=0.5)


@pytest.fixture(scope="module", name="certificate")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost` and 127.0.0.1, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "worker.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def _served_with(certificate: Path, names: list[str | None]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    return context


async def test_a_certificate_is_checked_for_the_name_of_the_url(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names: list[str | None] = []
    client = PushClient(LOCAL)
    async with FakeWorker(tls=_served_with(certificate, names)) as worker:
        url = f"https://localhost:{worker.port}"
        assert await client.execute(url, "w", b"{}") is PushAnswer.ACCEPTED
        assert await client.cancel(url, "w", "run-1") is CancelAnswer.REQUESTED
        assert await client.execute(url, "w", b"x" * 1_000_000) is PushAnswer.ACCEPTED
        assert names == ["localhost"]
        assert worker.received[0].headers["host"] == f"localhost:{worker.port}"
        assert {request.connection for request in worker.received} == {1}
        assert await client.execute(worker.url, "w", b"{}") is PushAnswer.ACCEPTED
        await client.close()


async def test_a_certificate_for_another_name_is_refused(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names: list[str | None] = []

    async def look_up(_host: str) -> list[Address]:
        return [ip_address("127.0.0.1")]  # an address that the certificate has

    client = PushClient(LOCAL, look_up=look_up)
    async with FakeWorker(tls=_served_with(certificate, names)) as worker:
        assert await client.execute(f"https://worker.example.com:{worker.port}", "w", b"{}") is PushAnswer.REFUSED
        assert await client.execute(f"https://localhost:{worker.port}", "w", b"{}") is PushAnswer.ACCEPTED
        assert names == ["worker.example.com", "localhost"]
        assert len(worker.received) == 1
        await client.close()


async def test_a_kept_tls_connection_that_has_ended_is_not_used(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    client = PushClient(LOCAL)
    async with FakeWorker(tls=_served_with(certificate, [])) as worker:
        for number in (1, 2):
            assert await client.execute(worker.url, "w", b"{}") is PushAnswer.ACCEPTED
            assert worker.received[-1].connection == number
            worker.end_all()

            async def ended() -> bool:
                return worker.open == 0

            await wait_until_async(ended, 5, "the end of the connection")
        await client.close()


async def test_a_lost_tls_connection_sends_nothing(certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    async with FakeWorker(tls=_served_with(certificate, [])) as worker:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(2000), "127.0.0.1", worker.port, ssl=trusting, server_hostname="localhost"
        )
        assert not connection.closing

        async def served() -> bool:
            return worker.open == 1

        await wait_until_async(served, 5, "the worker's end of the connection")
        worker.end_all()

        async def lost() -> bool:
            return connection.closing

        await wait_until_async(lost, 5, "the end of the connection")
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                await connection.ask(b"GET / HTTP/1.1\r\n\r\n")
            await others_run(0.01)
        assert not connection.asked


async def test_an_unknown_certificate_is_refused_before_anything_is_sent(certificate: Path) -> None:
    client = PushClient(LOCAL)
    async with FakeWorker(tls=_served_with(certificate, [])) as worker:
        assert await client.execute(worker.url, "w", b"{}") is PushAnswer.REFUSED
        assert worker.received == []
        await client.close()


async def test_a_worker_without_tls_gets_nothing_over_https() -> None:
    client = PushClient(IMPATIENT)
    async with FakeWorker() as worker:
        assert await client.execute(f"https://127.0.0.1:{worker.port}", "w", b"{}") is PushAnswer.REFUSED
        assert worker.received == []
        await client.close()


async def test_silence_over_tls_is_ambiguous(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    client = PushClient(IMPATIENT)
    async with FakeWorker(tls=_served_with(certificate, [])) as worker:
        worker.answering = keeps_silent
        assert await client.execute(worker.url, "w", b"{}") is PushAnswer.AMBIGUOUS
        assert len(worker.received) == 1
        await client.close()


Message = MutableMapping[str, Any]


@contextmanager
def _uvicorn(clients: list[tuple[str, int]]) -> Iterator[str]:
    """Run what the SDK's workers have for a server; it notes where each request comes from."""

    async def worker(
        scope: Message, _receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        clients.append(scope["client"])
        status = 200 if scope["path"] == "/execute" else 404
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(worker, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, 10, "uvicorn")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


async def test_the_server_of_the_sdks_workers_keeps_the_connection() -> None:
    clients: list[tuple[str, int]] = []
    client = PushClient(LOCAL)
    with _uvicorn(clients) as url:
        for _ in range(3):
            assert await client.execute(url, "w", b"{}") is PushAnswer.ACCEPTED
        assert await client.cancel(url, "w", "run-1") is CancelAnswer.UNKNOWN
        assert len(clients) == 4
        assert len(set(clients)) == 1
        await asyncio.gather(*(client.execute(url, "w", b"{}") for _ in range(50)))
        assert len(clients) == 54
        await client.close()
    assert await client.execute(url, "w", b"{}") is PushAnswer.REFUSED
