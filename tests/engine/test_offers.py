"""What workflows say of themselves: which specs are refused, and which payloads."""

from __future__ import annotations

import msgspec
import pytest

from dormice.domain.errors import Invalid
from dormice.engine.runs.offers import Offer, RetryPolicy, check_offer, check_payload

SCHEMA = b'{"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}, "required": ["n"]}'


def offer(schema: bytes) -> Offer:
    return Offer(input_schema=msgspec.Raw(schema))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (b'{"retry_policy": {"max_retries": -1}}', "max_retries from 0"),
        (b'{"retry_policy": {"initial_ms": 10, "max_ms": 5}}', "initial_ms <= max_ms"),
        (b'{"retry_policy": {"multiplier": 0.5}}', "multiplier must be from 1"),
        (b'{"retry_policy": {"max_retries": "many"}}', "retry_policy"),
        (b'{"input_schema": {"type": "nonsense"}}', "input_schema is no JSON Schema"),
        (b'{"output_schema": {"$ref": "http://127.0.0.1:9/x"}}', "output_schema is no JSON Schema"),
        (b'{"input_schema": {"pattern": "(a)\\\\1"}}', "input_schema is no JSON Schema"),
        (b'{"input_schema": "text"}', "input_schema is no JSON Schema"),
        (b'{"input_schema": {"minimum": 1e400}}', "input_schema is no JSON Schema"),
        (b'{"input_schema": {"const": "\\ud800"}}', "schema cannot be read"),
        (b'{"input_schema": ' + b'{"not":' * 400 + b"true" + b"}" * 400 + b"}", "input_schema is no JSON Schema"),
        (b'{"output_schema": ' + b'{"not":' * 5_000 + b"true" + b"}" * 5_000 + b"}", "schema cannot be read"),
        (b'{"retry_policy": {"max_retries": "\\ud800"}}', "retry_policy"),
        (b'{"input_schema": {"description": "' + b"x" * 262_144 + b'"}}', "at most 262144 bytes"),
    ],
)
def test_a_spec_that_cannot_be_gone_by_is_refused(spec: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        check_offer(spec)
    assert refused.value.status == 400


def test_a_payload_that_fits_not_is_refused_without_its_values() -> None:
    check_payload(offer(SCHEMA), b'{"n": 3}')
    with pytest.raises(Invalid) as refused:
        check_payload(offer(SCHEMA), b'{"n": 987654}')
    assert "payload['n']" in refused.value.message
    assert "987654" not in refused.value.message


@pytest.mark.parametrize("document", [b"1e400", b'{"n": "\\ud800"}', b"[" * 5_000 + b"]" * 5_000])
def test_a_payload_that_cannot_be_read_does_not_fit(document: bytes) -> None:
    with pytest.raises(Invalid, match="payload cannot be compared with the workflow's input_schema"):
        check_payload(offer(b'{"items": {"$ref": "#"}}'), document)


def test_expressions_take_linear_time() -> None:
    evil = offer(b'{"type": "string", "pattern": "^(a+)+$"}')
    with pytest.raises(Invalid):
        check_payload(evil, b'"' + b"a" * 50_000 + b'b"')


def test_pauses_grow_to_their_longest() -> None:
    policy = RetryPolicy(initial_ms=100, multiplier=3, max_ms=1_000)
    for failures, longest in enumerate((100, 300, 900, 1_000, 1_000)):
        assert longest * 500 <= policy.pause(failures) <= longest * 1_000
