"""Where webhooks may lead, and that the address that was judged is the one that is connected to."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from dormice.domain.errors import Invalid
from dormice.outbound.interface import Answer
from dormice.outbound.targets import Address
from dormice.outbound.webhooks import WebhookPolicy, WebhookSender, check_webhook_url
from tests.webhooks.receiver import Receiver

PUBLIC_ONLY = WebhookPolicy()
HERE = WebhookPolicy(("127.0.0.0/8",), timeout_seconds=5)
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "0.0.0.0",
    "100.100.100.200",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "fec0::1",
    "3fff::1",
    "5f00::1",
]
PRIVATE = ["10.1.2.3", "172.16.0.1", "192.168.0.9", "100.64.0.9", "127.0.0.1", "fd12::1", "::1", "::ffff:10.0.0.1"]


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_sent_to(address: str) -> None:
    for policy in (PUBLIC_ONLY, WebhookPolicy(("0.0.0.0/0", "::/0", "example.com"))):
        assert not policy.allows("example.com", ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_only_where_their_network_or_name_is_allowed(address: str) -> None:
    assert not PUBLIC_ONLY.allows("hooks.internal", ip_address(address))
    assert WebhookPolicy(("hooks.internal",)).allows("a.hooks.internal", ip_address(address))
    assert not WebhookPolicy(("hooks.internal",)).allows("hooks.example", ip_address(address))
    everything = WebhookPolicy(("0.0.0.0/0", "::/0"))
    assert everything.allows("hooks.internal", ip_address(address))
    url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
    with pytest.raises(Invalid, match="url") as refused:
        check_webhook_url(url, PUBLIC_ONLY)
    assert refused.value.location == "body.url"
    check_webhook_url(url, everything)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::1.1.1.1"])
def test_public_addresses_always(address: str) -> None:
    for policy in (PUBLIC_ONLY, HERE):
        assert policy.allows("example.com", ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://x.localhost",
        "http://2130706433/",
        "http://127.1/",
        "ftp://a.net",
        "https://a.net/#x",
        "https://u:p@a.net",
        "",
    ],
)
def test_urls_that_are_never_called_are_refused_at_once(url: str) -> None:
    with pytest.raises(Invalid, match="url"):
        check_webhook_url(url, PUBLIC_ONLY)


@pytest.mark.parametrize("url", ["https://example.com/a/?b=c&d", "http://example.com:8080/", "https://1.1.1.1/x"])
def test_urls_may_have_paths_and_queries(url: str) -> None:
    check_webhook_url(url, PUBLIC_ONLY)


async def post(policy: WebhookPolicy, url: str, *answers: list[str]) -> tuple[Answer, int]:
    """Send something by a name that stands for these addresses, each time for the next; how often it was looked up."""
    asked: list[str] = []
    left = [[ip_address(one) for one in each] for each in answers]

    async def names(host: str) -> list[Address]:
        asked.append(host)
        return left.pop(0)

    sender = WebhookSender(policy, look_up=names)
    try:
        return await sender.post(url, {"webhook-id": "evt-1"}, b"{}"), len(asked)
    finally:
        await sender.close()


async def test_a_name_that_means_a_private_address_is_not_connected_to(receiver: Receiver) -> None:
    answer, _ = await post(PUBLIC_ONLY, f"http://rebound.example:{receiver.port}/", ["127.0.0.1"])
    assert answer.status is None
    assert "may connect to" in (answer.error or "")
    assert receiver.requests == []


async def test_a_name_is_looked_up_once_and_what_was_judged_is_connected_to(receiver: Receiver) -> None:
    answer, asked = await post(HERE, f"http://hook.example:{receiver.port}/a/?b=1", ["127.0.0.1"], ["169.254.169.254"])
    assert (answer, asked) == (Answer(200), 1)
    (request,) = receiver.requests
    assert (request.path, request.headers["host"]) == ("/a/?b=1", f"hook.example:{receiver.port}")


async def test_an_answer_is_read_so_far_and_for_so_long(receiver: Receiver) -> None:
    receiver.status, receiver.location = 200, "x" * 30_000
    answer, _ = await post(WebhookPolicy(("127.0.0.0/8",), 5, answer_bytes=1000), receiver.url)
    assert answer == Answer(None, "the connection ended without an answer"), "its head never ended"


async def test_an_endpoint_that_wants_another_protocol_gives_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(switch, "127.0.0.1", 0) as server:
        answer, _ = await post(HERE, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert answer == Answer(None, "the connection ended without an answer")
    assert caplog.records == []


async def test_why_there_is_no_answer_is_told() -> None:
    answer, _ = await post(HERE, "http://127.0.0.1:9/")
    assert answer == Answer(None, "nobody listens there")
