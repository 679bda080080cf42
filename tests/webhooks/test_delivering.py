"""When events are sent again, given up, and a webhook is disabled: with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from dormice.api.webhooks.wire import document
from dormice.domain.limits import Limits
from dormice.domain.webhook import Delivery, DeliveryState, Webhook, back_off, secret_of, signatures
from dormice.engine.feed import Feed
from dormice.engine.observer import Observer
from dormice.engine.service import serve
from dormice.engine.tasks import Tasks
from dormice.engine.webhooks.delivering import AT_ONCE, Delivering, WebhookNews
from dormice.outbound.interface import Answer
from dormice.store.workflows import WholeStore as Store
from tests.engine.scripted_node import MovedClock
from tests.store.conftest import open_sqlite
from tests.store.test_webhooks import create, told
from tests.store.world import World
from tests.wait import wait_until_async

HOUR = 3_600
LIMITS = Limits(webhook_first_retry_ms=1_000)


@dataclass
class Endpoints:
    """Answers as told, by URL; keeps what was sent."""

    answers: dict[str, Answer] = field(default_factory=dict)
    sent: list[tuple[str, str]] = field(default_factory=list)
    """URL and event id."""
    bodies: list[bytes] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Until it is set, the stuck ones answer nothing."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.sent.append((url, headers["webhook-id"]))
        self.bodies.append(body)
        if url in self.stuck:
            await self.released.wait()
        return self.answers.get(url, Answer(200))


@dataclass
class Lab:
    world: World
    endpoints: Endpoints
    clock: MovedClock
    news: WebhookNews

    async def until(self, webhook: Webhook, state: DeliveryState, attempts: int = 0) -> Delivery:
        async def found() -> Delivery | None:
            self.news.hint()
            all_of_it = await told(self.world, webhook)
            return next((one for one in all_of_it if one.state is state and one.attempts >= attempts), None)

        return await wait_until_async(found, 10, f"{state} after {attempts}")


@asynccontextmanager
async def delivering(store: Store, limits: Limits = LIMITS) -> AsyncIterator[Lab]:
    endpoints, clock, news = Endpoints(), MovedClock(), WebhookNews()
    async with asyncio.TaskGroup() as group:
        service = Delivering(
            store=store.webhooks,
            news=news,
            sender=endpoints,
            describe=partial(document, limits=limits),
            feed=Feed(),
            tasks=Tasks(group),
            clock=clock,
            limits=limits,
            observer=Observer(),
        )
        world = await World.made(store)
        world.now = clock.now()
        task = group.create_task(serve("webhooks", service.turn, set()))
        try:
            yield Lab(world, endpoints, clock, news)
        finally:
            task.cancel()
            for one in asyncio.all_tasks():
                if one.get_name().startswith("deliveries"):
                    one.cancel()


@pytest.fixture(name="lab")
async def _lab(tmp_path: Path) -> AsyncIterator[Lab]:
    store = open_sqlite(tmp_path)
    async with delivering(store) as lab:
        yield lab
    await store.close()


async def test_an_event_is_sent_again_with_pauses_until_it_is_given_up(lab: Lab) -> None:
    webhook = await create(lab.world)
    lab.endpoints.answers[webhook.url] = Answer(503)
    ended = await lab.world.ended()
    attempts = 0
    while True:
        (delivery,) = await told(lab.world, webhook)
        if delivery.state is DeliveryState.FAILED:
            break
        attempts += 1
        lab.clock.forward(HOUR)
        await wait_until_async(partial(_tried, lab, webhook, attempts), 10, "tried")
    assert 20 <= delivery.attempts <= 30
    assert {event for _, event in lab.endpoints.sent} == {delivery.event_id}
    assert (delivery.execution_id, delivery.last_error) == (ended.id, "the endpoint answered 503")


async def _tried(lab: Lab, webhook: Webhook, attempts: int) -> bool:
    lab.news.hint()
    return (await told(lab.world, webhook))[0].attempts >= attempts


async def test_a_webhook_that_fails_for_days_is_disabled_and_told_nothing_more(lab: Lab) -> None:
    webhook = await create(lab.world)
    lab.endpoints.answers[webhook.url] = Answer(None, "nobody listens there")
    await lab.world.ended()
    await lab.until(webhook, DeliveryState.PENDING, attempts=1)
    lab.clock.forward(73 * HOUR)

    async def disabled() -> Webhook | None:
        lab.news.hint()
        found = await lab.world.store.webhooks.get(lab.world.organization, webhook.id)
        return found if found and not found.enabled else None

    found = await wait_until_async(disabled, 10, "disabled")
    assert found.disabled_reason == "nothing could be delivered for 72 hours"
    before = len(await told(lab.world, webhook))
    await lab.world.ended()
    assert len(await told(lab.world, webhook)) == before


async def test_an_event_that_is_refused_again_and_again_delays_no_other(lab: Lab) -> None:
    webhook = await create(lab.world)
    lab.endpoints.answers[webhook.url] = Answer(500)
    await lab.world.ended()
    first = await lab.until(webhook, DeliveryState.PENDING, attempts=1)
    lab.endpoints.answers.clear()
    await lab.world.ended()
    lab.clock.forward(0.5)  # the pause of the webhook, not yet that of the event
    after = await lab.until(webhook, DeliveryState.DELIVERED)
    assert after.event_id != first.event_id


async def test_one_that_never_answers_delays_no_other(lab: Lab) -> None:
    stuck = await create(lab.world, 1, url="https://stuck.example")
    lab.endpoints.stuck.add(stuck.url)
    webhook = await create(lab.world, 2)
    for _ in range(30):
        await lab.world.ended()

    async def all_told() -> bool:
        lab.news.hint()
        return all(one.state is DeliveryState.DELIVERED for one in await told(lab.world, webhook))

    await wait_until_async(all_told, 10, "all told")
    assert len([1 for url, _ in lab.endpoints.sent if url == stuck.url]) <= 4, "and little is held for it"


async def test_many_slow_ones_with_much_to_hear_do_not_starve_another(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dormice.engine.webhooks.delivering.WEBHOOKS_AT_ONCE", 1)
    monkeypatch.setattr("dormice.engine.webhooks.delivering.SHARE_SECONDS", 0.0)
    slow = [await create(lab.world, number, url=f"https://{number}.example") for number in (1, 2)]
    lab.endpoints.stuck = {one.url for one in slow}
    for _ in range(40):
        await lab.world.ended()
    late = await create(lab.world, 3, url="https://late.example")
    await lab.world.ended()
    lab.clock.forward(10)  # what has ended has its moment by another clock, which may be ahead
    lab.endpoints.released.set()
    await lab.until(late, DeliveryState.DELIVERED)
    before = lab.endpoints.sent[: [url for url, _ in lab.endpoints.sent].index(late.url)]
    assert len(before) <= 2 * AT_ONCE, "each of them had a turn"
    assert {url for url, _ in before} <= {one.url for one in slow}


async def test_a_command_that_is_too_long_is_left_out(lab: Lab) -> None:
    webhook = await create(lab.world)
    await lab.world.ended(command=("echo", "\x01" * 500_000))
    await lab.until(webhook, DeliveryState.DELIVERED)
    (body,) = lab.endpoints.bodies
    assert len(body) < LIMITS.webhook_payload_bytes
    assert b'"execution_id"' in body
    assert b'"command"' not in body


@pytest.mark.parametrize("failures", [1, 2, 5, 50])
def test_pauses_grow_up_to_a_bound_and_differ(failures: int) -> None:
    longest = min(1_000 * 4 ** (failures - 1), 3_600_000) * 1_000
    least, most = (back_off(1_000, 4, 3_600_000, failures, bytes([fill]) * 4) for fill in (0, 255))
    assert least == longest // 2
    assert longest * 0.999 < most <= longest


def test_a_signature_is_that_of_the_standard() -> None:
    # The example of the specification's reference implementations.
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    signed = signatures([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert len(signatures([secret, secret_of(b"x" * 32)], "a", 1, b"").split(" ")) == 2
    with pytest.raises(ValueError, match="not a webhook's secret"):
        signatures(["nonsense!"], "a", 1, b"")
