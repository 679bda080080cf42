"""The port: webhooks, and that what they are told is recorded where it happens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dormice.domain.execution import ExecutionEvent, ExecutionState
from dormice.domain.machine import MachineEvent, Phase
from dormice.domain.transitions import IllegalTransition
from dormice.domain.webhook import (
    FAMILIES,
    TRANSITIONS,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    EventType,
    Webhook,
    event_id_of,
)
from dormice.store.interface import IdempotencyClaim, KeyReused, MachineChange, Replayed
from dormice.store.webhooks import Attempt, Condition, NewWebhook, Pending, TooManyWebhooks, WebhookChange
from dormice.store.workflows import WholeStore as Store
from tests.store.conftest import open_sqlite
from tests.store.test_machines import in_phase
from tests.store.world import MINUTE, START, World, outcome

ALL = tuple(FAMILIES)
SECRET = "whsec_c2VjcmV0LW9mLWEtd2ViaG9vaw=="
CLAIM = IdempotencyClaim(scope="s", key="k", request_hash="1", now=START, keep_until=START + MINUTE)
WELL = Condition(failures=0, failing_since=None, resume_at=0)


async def create(world: World, number: int = 1, **fields: object) -> Webhook:
    new = {
        "id": f"wh-{number}",
        "organization_id": world.organization,
        "url": "https://example.com/hook",
        "events": ALL,
        "enabled": True,
        "secret": SECRET,
        "now": START,
        **fields,
    }
    made = await world.store.webhooks.create(NewWebhook(**new), None, most=3)  # type: ignore[arg-type] # as above
    assert isinstance(made, Webhook)
    return made


async def told(world: World, webhook: Webhook) -> list[Delivery]:
    found = await world.store.webhooks.deliveries(world.organization, webhook.id, before=None, limit=100)
    return found[::-1]


@pytest.mark.parametrize(
    "state",
    [ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.CANCELLED, ExecutionState.EXPIRED],
)
async def test_every_end_is_told_once(world: World, state: ExecutionState) -> None:
    webhook = await create(world)
    ended = await world.in_state(state)
    (delivery,) = await told(world, webhook)
    assert delivery.type.value == f"execution.{state.value}"
    assert (delivery.execution_id, delivery.at) == (ended.id, ended.completed_at)
    assert delivery.event_id == event_id_of(ended)
    found = await world.store.webhooks.due_of(webhook.id, world.now, limit=10)
    assert found is not None
    assert (found.due[0].subject, found.secrets) == (ended, (SECRET,))


async def test_ends_in_other_ways_are_told_too(world: World) -> None:
    webhook = await create(world)
    waiting, claimed = await world.create(), await world.claimed()
    await world.store.executions.request_cancel(waiting.id, world.tick())
    await world.store.executions.end_boot(world.machine.id, world.boot, outcome(ExecutionEvent.FAILED, world.tick()))
    kinds = {delivery.execution_id: delivery.type for delivery in await told(world, webhook)}
    assert kinds == {waiting.id: EventType.EXECUTION_CANCELLED, claimed.id: EventType.EXECUTION_FAILED}


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.SLEEPING, Phase.FAILED, Phase.DESTROYED])
async def test_a_phase_is_told_with_the_machine_as_it_was_then(world: World, phase: Phase) -> None:
    webhook = await create(world)
    machine = await in_phase(world, phase)
    assert machine.phase is phase
    last = (await told(world, webhook))[-1]
    assert (last.type.value, last.machine_id) == (f"machine.{phase.value}", machine.id)
    if phase is not Phase.DESTROYED:
        await world.store.machines.advance(
            machine.id, machine.revision, MachineEvent.DESTROY, MachineChange(), world.tick()
        )
    found = await world.store.webhooks.due_of(webhook.id, world.now, limit=10)
    assert found is not None
    assert found.due[-1].subject == machine


async def test_a_change_without_a_new_phase_tells_nothing(world: World) -> None:
    machine = await in_phase(world, Phase.RUNNING)
    webhook = await create(world)
    await world.store.machines.advance(
        machine.id, machine.revision, None, MachineChange(autosleep_seconds=7), world.tick()
    )
    assert await told(world, webhook) == []


async def test_only_enabled_webhooks_of_the_organization_that_want_it_are_told(world: World) -> None:
    other = await world.store.keys.ensure_organization("other", START)
    wanting = await create(world, 1, events=("execution.failed", "machine.changed"))
    disabled = await create(world, 2, enabled=False)
    foreign = await create(world, 3, organization_id=other)
    await world.ended(ExecutionEvent.SUCCEEDED)
    await world.ended(ExecutionEvent.FAILED)
    assert [one.type for one in await told(world, wanting)] == [EventType.EXECUTION_FAILED]
    assert await told(world, disabled) == []
    assert await world.store.webhooks.deliveries(other, foreign.id, before=None, limit=9) == []
    assert set(await world.store.webhooks.due()) == {wanting.id}


async def test_an_organization_has_so_many_webhooks_at_most(world: World) -> None:
    for number in range(3):
        await create(world, number)
    new = NewWebhook(
        id="wh-9", organization_id=world.organization, url="https://a", events=ALL, enabled=True, secret=SECRET, now=0
    )
    assert await world.store.webhooks.create(new, None, most=3) == TooManyWebhooks()


async def test_a_key_makes_one_webhook_and_tells_its_secret_again(world: World) -> None:
    webhooks, mine = world.store.webhooks, world.organization
    first, other = (
        NewWebhook(id=name, organization_id=mine, url="https://a", events=ALL, enabled=True, secret=secret, now=START)
        for name, secret in (("wh-1", SECRET), ("wh-2", "whsec_b3RoZXI="))
    )
    made = await webhooks.create(first, CLAIM, most=1)
    assert isinstance(made, Webhook)
    assert await webhooks.create(other, CLAIM, most=1) == Replayed(made.id)  # though there are as many as there may be
    assert await webhooks.create(other, replace(CLAIM, request_hash="2"), most=9) == KeyReused("1", "2")
    assert await webhooks.of(mine) == [made]
    assert await webhooks.with_secret(mine, made.id) == (made, SECRET)
    assert await webhooks.with_secret("another", made.id) is None


async def attempt(world: World, webhook: Webhook, event: DeliveryEvent, condition: Condition = WELL) -> Delivery:
    found = await world.store.webhooks.due_of(webhook.id, world.now, limit=1)
    assert found is not None
    delivery = found.due[0].delivery
    came = Attempt(delivery=delivery, event=event, at=world.tick(), status=500, error="no", next_at=world.now + MINUTE)
    await world.store.webhooks.attempted(found.webhook, [came], condition)
    after = await world.store.webhooks.delivery(world.organization, webhook.id, delivery.event_id)
    assert after is not None
    return after


async def test_what_failed_is_due_again_later(world: World) -> None:
    webhook = await create(world)
    await world.ended()
    failing = Condition(failures=1, failing_since=world.now, resume_at=world.now + 10)
    after = await attempt(world, webhook, DeliveryEvent.REFUSED, failing)
    assert (after.state, after.attempts, after.last_status) == (DeliveryState.PENDING, 1, 500)
    assert await world.store.webhooks.due_of(webhook.id, after.next_at - 1, limit=9) is None
    assert await world.store.webhooks.due() == {webhook.id: after.next_at}
    assert await world.store.webhooks.due_of(webhook.id, after.next_at, limit=9) is not None


async def test_a_failing_webhook_gets_one_at_a_time_and_a_pause(world: World) -> None:
    webhook = await create(world)
    for _ in range(3):
        await world.ended()
    resume = world.now + 5 * MINUTE
    await attempt(world, webhook, DeliveryEvent.REFUSED, Condition(failures=1, failing_since=5, resume_at=resume))
    assert await world.store.webhooks.due_of(webhook.id, resume - 1, limit=9) is None
    found = await world.store.webhooks.due_of(webhook.id, resume, limit=9)
    assert found is not None
    assert len(found.due) == 1


async def test_what_is_to_be_sent_to_enabled_webhooks_is_counted_and_dated(world: World) -> None:
    webhooks = world.store.webhooks
    assert await webhooks.pending() == Pending(0, None)
    first, second = await create(world, 1), await create(world, 2)
    ended = await world.ended()
    await world.ended()
    assert await webhooks.pending() == Pending(4, ended.completed_at)
    pauses = Condition(failures=1, failing_since=world.now, resume_at=world.now + MINUTE)
    await attempt(world, first, DeliveryEvent.REFUSED, pauses)
    assert await webhooks.pending() == Pending(4, ended.completed_at)
    await webhooks.change(world.organization, second.id, WebhookChange(enabled=False))
    assert await webhooks.pending() == Pending(2, pauses.resume_at)
    await webhooks.delete(world.organization, first.id)
    assert await webhooks.pending() == Pending(0, None)


async def test_what_its_owner_changes_meanwhile_is_not_overwritten(world: World) -> None:
    webhook = await create(world)
    await world.ended()
    found = await world.store.webhooks.due_of(webhook.id, world.now, limit=1)
    assert found is not None
    changed = await world.store.webhooks.change(world.organization, webhook.id, WebhookChange(url="https://new"))
    gone = Condition(failures=1, failing_since=5, resume_at=9, disabled_reason="gone")
    await world.store.webhooks.attempted(found.webhook, [], gone)
    assert await world.store.webhooks.get(world.organization, webhook.id) == changed
    assert changed is not None
    await world.store.webhooks.attempted(changed, [], gone)
    disabled = await world.store.webhooks.get(world.organization, webhook.id)
    assert disabled is not None
    assert (disabled.enabled, disabled.disabled_reason) == (False, "gone")


async def test_an_attempt_counts_once(world: World) -> None:
    webhook = await create(world)
    await world.ended()
    found = await world.store.webhooks.due_of(webhook.id, world.now, limit=1)
    assert found is not None
    came = Attempt(
        delivery=found.due[0].delivery, event=DeliveryEvent.ACCEPTED, at=1, status=200, error=None, next_at=0
    )
    for _ in range(2):
        await world.store.webhooks.attempted(webhook, [came], WELL)
    (delivery,) = await told(world, webhook)
    assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 1)


async def test_a_delivery_that_has_ended_can_be_sent_again(world: World) -> None:
    webhook = await create(world)
    await world.ended()
    done = await attempt(world, webhook, DeliveryEvent.ACCEPTED)
    assert (done.state, await world.store.webhooks.due()) == (DeliveryState.DELIVERED, {})
    again = await world.store.webhooks.redeliver(world.organization, webhook.id, done.event_id, world.tick())
    assert again is not None
    assert (again.state, again.attempts, again.first_attempt_at) == (DeliveryState.PENDING, 1, None)
    assert await world.store.webhooks.redeliver(world.organization, webhook.id, "evt-none", 0) is None
    assert await world.store.webhooks.redeliver("other", webhook.id, done.event_id, 0) is None


async def test_an_attempt_from_before_a_delivery_was_begun_anew_does_not_end_it(world: World) -> None:
    webhook = await create(world)
    await world.ended()
    delivery = await attempt(world, webhook, DeliveryEvent.REFUSED)
    again = await world.store.webhooks.redeliver(
        world.organization, webhook.id, delivery.event_id, world.now
    )  # while the last attempt is under way
    last = Attempt(delivery=delivery, event=DeliveryEvent.GIVEN_UP, at=world.now, status=503, error="503", next_at=0)
    await world.store.webhooks.attempted(webhook, [last], WELL)
    assert await told(world, webhook) == [again]


async def test_the_secret_before_counts_for_a_while(world: World) -> None:
    webhook = await create(world)
    await world.ended()
    until = world.now + MINUTE
    await world.store.webhooks.rotate(world.organization, webhook.id, "whsec_bmV3", until=until)
    for now, secrets in ((until - 1, ("whsec_bmV3", SECRET)), (until, ("whsec_bmV3",))):
        found = await world.store.webhooks.due_of(webhook.id, now, limit=1)
        assert found is not None
        assert found.secrets == secrets


async def test_a_deleted_webhook_is_told_nothing_and_its_deliveries_go_in_time(world: World) -> None:
    webhook = await create(world)
    await world.ended()
    assert await world.store.webhooks.delete(world.organization, webhook.id) == webhook
    assert await world.store.webhooks.delete(world.organization, webhook.id) is None
    assert (await world.store.webhooks.due(), await told(world, webhook)) == ({}, [])
    while await world.store.delete_finished(world.now + MINUTE):
        pass
    again = await create(world)
    assert await told(world, again) == []


async def test_what_was_deleted_meanwhile_is_told_as_nothing(world: World) -> None:
    webhook = await create(world)
    ended = await world.ended()
    await world.store.delete_finished((ended.completed_at or 0) + 1)
    found = await world.store.webhooks.due_of(webhook.id, world.now, limit=1)
    assert found is not None
    assert found.due[0].subject is None


async def test_the_file_shows_no_secret(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path)
    world = await World.made(store)
    await create(world)
    await store.close()
    files = [path.read_bytes() for path in tmp_path.iterdir()]  # noqa: ASYNC240 - nobody waits
    assert not any(SECRET.encode() in data or b"secret-of-a-webhook" in data for data in files)


async def test_what_was_recorded_is_there_after_a_restart(tmp_path: Path) -> None:
    store: Store = open_sqlite(tmp_path)
    world = await World.made(store)
    webhook = await create(world)
    await world.ended()
    before = await told(world, webhook)
    await store.close()
    world.store = store = open_sqlite(tmp_path)
    assert await told(world, webhook) == before
    assert await store.webhooks.due_of(webhook.id, world.now, limit=1) is not None
    await store.close()


@pytest.mark.parametrize("state", DeliveryState)
@pytest.mark.parametrize("event", DeliveryEvent)
def test_only_what_the_table_says_can_happen_to_a_delivery(state: DeliveryState, event: DeliveryEvent) -> None:
    delivery = Delivery(number=1, webhook_id="w", event_id="e", type=EventType.TEST, at=1, state=state)
    if event in TRANSITIONS[state]:
        assert delivery.on(event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition):
            delivery.on(event)
