"""Tokens are good for one thing and a short time, and survive what the server does not."""

from __future__ import annotations

from hashlib import sha256

import pytest

from dormice.engine.tokens import Tokens
from tests.engine.scripted_node import MovedClock


def signing(key: bytes = b"key") -> Tokens:
    return Tokens(sign=lambda text: sha256(key + text).hexdigest(), clock=MovedClock())


def test_a_token_is_good_for_what_it_was_issued_for_and_for_its_time() -> None:
    clock = MovedClock()
    tokens = Tokens(sign=lambda text: sha256(text).hexdigest(), clock=clock)
    token = tokens.issue("terminal", "term-1", seconds=900)
    assert tokens.good("terminal", "term-1", token)
    assert not tokens.good("terminal", "term-2", token)
    assert not tokens.good("preview", "term-1", token)
    clock.set_by(86_400)
    assert tokens.good("terminal", "term-1", token), "whoever sets the host's clock ends no token"
    clock.forward(899)
    assert tokens.good("terminal", "term-1", token)
    clock.forward(2)
    assert not tokens.good("terminal", "term-1", token)


def test_a_token_of_another_server_is_none() -> None:
    assert not signing(b"other").good("terminal", "term-1", signing().issue("terminal", "term-1", seconds=900))


@pytest.mark.parametrize("text", ["", ".", "1.", "9" * 12, f"{'9' * 13}.{'0' * 64}", f"-1.{'0' * 64}", "1.\u0660" * 33])
def test_what_is_no_token_is_not_good(text: str) -> None:
    assert not signing().good("terminal", "term-1", text)


def test_the_end_cannot_be_put_off() -> None:
    tokens = signing()
    until, _, signature = tokens.issue("terminal", "term-1", seconds=900).partition(".")
    assert not tokens.good("terminal", "term-1", f"{int(until) + 1}.{signature}")
