"""The port: organizations and API keys."""

import hashlib
from dataclasses import replace
from typing import cast

import pytest

from dormice.store.interface import Key, Store
from dormice.store.workflows import WholeStore
from tests.store.run_world import RunWorld

NOW = 1_800_000_000_000_000


def hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def a_key(organization_id: str, organization: str = "default", key_id: str = "key-1") -> Key:
    return Key(
        id=key_id,
        organization_id=organization_id,
        organization=organization,
        name="laptop",
        admin=True,
        prefix="dm_abc",
        created_at=NOW,
    )


async def test_an_organization_is_made_once(store: Store) -> None:
    first = await store.keys.ensure_organization("default", NOW)
    assert await store.keys.ensure_organization("default", NOW + 1) == first
    assert await store.keys.ensure_organization("other", NOW) != first


async def test_a_key_is_found_by_its_hash(store: Store) -> None:
    key = a_key(await store.keys.ensure_organization("default", NOW))
    assert await store.keys.create(key, hashed("secret")) == key
    assert await store.keys.find(hashed("secret")) == key
    assert await store.keys.find(hashed("other")) is None


async def test_the_same_secret_again_is_the_key_that_has_it(store: Store) -> None:
    key = a_key(await store.keys.ensure_organization("default", NOW))
    await store.keys.create(key, hashed("secret"))
    assert await store.keys.create(replace(key, id="key-2", name="other"), hashed("secret")) == key
    assert await store.keys.of(None) == [key]


async def test_a_key_of_an_unknown_organization_is_refused(store: Store) -> None:
    with pytest.raises(LookupError):
        await store.keys.create(a_key("nobody"), hashed("secret"))


async def test_keys_are_listed_by_organization_oldest_first(store: Store) -> None:
    one = await store.keys.ensure_organization("one", NOW)
    two = await store.keys.ensure_organization("two", NOW)
    first = await store.keys.create(a_key(one, "one", "b"), hashed("1"))
    second = await store.keys.create(a_key(two, "two", "c"), hashed("2"))
    third = await store.keys.create(a_key(one, "one", "a"), hashed("3"))
    assert await store.keys.of(one) == [first, third]
    assert await store.keys.of(None) == [first, second, third]


async def test_a_key_is_revoked_once_and_stays_known(store: Store) -> None:
    organization = await store.keys.ensure_organization("default", NOW)
    key = await store.keys.create(a_key(organization), hashed("secret"))
    revoked = await store.keys.revoke(organization, key.id, NOW + 1)
    assert revoked == replace(key, revoked_at=NOW + 1)
    assert await store.keys.revoke(None, key.id, NOW + 2) == revoked
    assert await store.keys.find(hashed("secret")) == revoked


async def test_a_key_of_another_organization_is_not_revoked(store: Store) -> None:
    key = await store.keys.create(a_key(await store.keys.ensure_organization("default", NOW)), hashed("secret"))
    other = await store.keys.ensure_organization("other", NOW)
    assert await store.keys.revoke(other, key.id, NOW) is None
    assert await store.keys.revoke(None, "key-none", NOW) is None
    assert await store.keys.find(hashed("secret")) == key


async def test_the_last_use_of_a_projects_key_is_kept_until_it_is_revoked(store: Store) -> None:
    project = (await RunWorld.made(cast("WholeStore", store))).project
    made = await store.keys.create_for_project(
        replace(a_key(project.organization_id), project_id=project.id, admin=False), hashed("secret"), most=1
    )
    assert isinstance(made, Key)
    assert made.used_at is None
    await store.keys.use({made.id: NOW + 5, "key-none": NOW})
    await store.keys.use({made.id: NOW + 3})
    [listed] = await store.keys.of_project(project.id)
    assert listed == replace(made, organization="default", used_at=NOW + 5)
    await store.keys.revoke(None, made.id, NOW + 6)
    await store.keys.use({made.id: NOW + 7})
    found = await store.keys.find(hashed("secret"))
    assert found is not None
    assert found.used_at is None
