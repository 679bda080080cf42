"""The check on the page works, and lets nothing else through."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from dormice.domain.webhook import secret_of, signatures

PAGE = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
SECRET, OTHER = secret_of(b"a" * 32), secret_of(b"b" * 32)


@pytest.fixture(name="check")
def _check() -> Any:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [one for one in blocks if "def is_from_dormice" in one]
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return names["is_from_dormice"]


def _headers(secrets: list[str], body: bytes, age: int = 0) -> dict[str, str]:
    sent_at = int(time.time()) - age
    signed = signatures(secrets, "evt-1", sent_at, body)
    return {"webhook-id": "evt-1", "webhook-timestamp": str(sent_at), "webhook-signature": signed}


def test_the_check_of_the_page_takes_what_we_sign(check: Any) -> None:
    body = b'{"type":"webhook.test"}'
    assert check(SECRET, _headers([SECRET], body), body)
    assert check(SECRET, _headers([OTHER, SECRET], body), body)


def test_the_check_of_the_page_refuses_everything_else(check: Any) -> None:
    body = b"{}"
    genuine = _headers([SECRET], body)
    assert not check(OTHER, genuine, body)
    assert not check(SECRET, genuine, body + b" ")
    assert not check(SECRET, {**genuine, "webhook-id": "evt-2"}, body)
    assert not check(SECRET, _headers([SECRET], body, age=301), body)
