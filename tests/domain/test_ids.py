"""Ids: what is minted, what is understood."""

import os
import re
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormice.domain import ids

moments = st.integers(0, 2**48 - 1)
randomness = st.binary(min_size=10, max_size=16)


@given(moments, randomness)
def test_a_uuid7_carries_version_variant_time_and_randomness(unix_ms: int, random: bytes) -> None:
    made = UUID(ids.uuid7(unix_ms, random))
    assert str(made) == ids.uuid7(unix_ms, random)
    assert made.version == 7
    assert made.variant == RFC_4122
    assert made.int >> 80 == unix_ms
    kept = (1 << 80) - 1 & ~(0xF << 76) & ~(0x3 << 62)
    assert made.int & kept == int.from_bytes(random[:10], "big") & kept


@given(moments, moments, randomness, randomness)
def test_ids_sort_by_the_millisecond_they_were_made_in(first: int, second: int, one: bytes, other: bytes) -> None:
    earlier, later = ids.execution_id(min(first, second), one), ids.execution_id(max(first, second), other)
    assert first == second or earlier < later


def test_ids_of_one_millisecond_differ() -> None:
    assert len({ids.machine_id(1, os.urandom(10)) for _ in range(1_000)}) == 1_000


@given(moments, randomness)
def test_an_execution_id_and_its_uuid_are_the_same_thing(unix_ms: int, random: bytes) -> None:
    minted = ids.execution_id(unix_ms, random)
    assert ids.execution_of(ids.execution_bytes(minted)) == minted
    assert ids.execution_bytes(minted) == UUID(ids.uuid7(unix_ms, random)).bytes


def test_a_machine_may_be_named_by_its_bare_uuid() -> None:
    minted = ids.machine_id(1, bytes(10))
    assert ids.canonical_machine_id(minted) == minted
    assert ids.canonical_machine_id(minted.removeprefix("dm-")) == minted


@pytest.mark.parametrize(
    "text",
    ["", "dm-", "dm-1", f"dm-{UUID(int=1)}x", f"dm-dm-{UUID(int=1)}", str(UUID(int=0xA << 64)).upper(), "../etc"],
)
def test_anything_else_names_no_machine(text: str) -> None:
    assert ids.canonical_machine_id(text) is None


@pytest.mark.parametrize("text", ["", "exec-", "exec-1", "true"])
def test_anything_else_is_no_execution_id(text: str) -> None:
    with pytest.raises(ValueError, match="execution id"):
        ids.execution_bytes(text)


def test_a_preview_id_is_a_label_of_a_host_name_with_all_its_randomness() -> None:
    made = {ids.preview_id(bytes([number]) * 16) for number in range(256)}
    assert len(made) == 256
    assert all(re.fullmatch("pv-[a-z2-7]{26}", preview_id) for preview_id in made)
