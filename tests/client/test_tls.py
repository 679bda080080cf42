"""HTTPS: every transport trusts the authorities that this host does, or those that the environment names, and no others."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dormice import APIConnectionError, AsyncDormice, Dormice
from dormice.client.socket_transport import SocketTransport
from tests.client.fake_server import KEY, FakeServer, running
from tests.telemetry.authority import Authority


def _by_httpx(url: str) -> object:
    with Dormice(base_url=url, api_key=KEY, max_retries=0) as client:
        return client.limits().limits


def _by_socket(url: str) -> object:
    with Dormice(base_url=url, api_key=KEY, max_retries=0, transport=SocketTransport()) as client:
        return client.limits().limits


def _by_aiohttp(url: str) -> object:
    async def ask() -> object:
        async with AsyncDormice(base_url=url, api_key=KEY, max_retries=0) as client:
            return (await client.limits()).limits

    return asyncio.run(ask())


Ask = Callable[[str], object]
pytestmark = pytest.mark.parametrize("ask", [_by_httpx, _by_socket, _by_aiohttp])


@pytest.fixture(name="authority", scope="module")
def _authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(name="far")
def _far(authority: Authority) -> Iterator[FakeServer]:
    with running(authority.server()) as server:
        yield server


@pytest.fixture(name="plain", autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_an_authority_in_a_file_that_the_environment_names_is_trusted(
    ask: Ask, far: FakeServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    assert ask(far.url) == {"argv_bytes": 131071}


def test_an_authority_in_a_directory_that_the_environment_names_is_trusted(
    ask: Ask, far: FakeServer, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "one.pem").write_bytes(authority.certificate.read_bytes())
    subprocess.run(["openssl", "rehash", tmp_path], check=True)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert ask(far.url) == {"argv_bytes": 131071}


def test_a_server_of_an_unknown_authority_gets_nothing(ask: Ask, far: FakeServer) -> None:
    with pytest.raises(APIConnectionError, match=r"(?i)certificate.verify.failed"):
        ask(far.url)
    assert far.requests == []


def test_a_server_by_another_name_gets_nothing(
    ask: Ask, far: FakeServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with pytest.raises(APIConnectionError, match=r"(?i)not valid for 'localhost'"):
        ask(far.url.replace("127.0.0.1", "localhost"))
    assert far.requests == []
