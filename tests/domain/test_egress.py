"""Allow-lists: what they take, and which names they allow."""

from __future__ import annotations

import pytest

from dormice.domain.egress import NOTHING, PUBLIC, BadEntry, allow_list


@pytest.mark.parametrize(
    ("entry", "plain"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("*.pypi.org", "*.pypi.org"),
        ("_dmarc.a-b.c1", "_dmarc.a-b.c1"),
        ("1.2.3.0/24", "1.2.3.0/24"),
        ("1.2.3.4", "1.2.3.4/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_an_entry_is_kept_in_its_plain_form(entry: str, plain: str) -> None:
    assert allow_list([entry, entry]).allow == (plain,)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("", "must be a domain name"),
        ("*", "must be a domain name"),
        ("a.*.b", "must be a domain name"),
        ("*.*.b", "must be a domain name"),
        ("exa mple.com", "must be a domain name"),
        ("-a.com", "must be a domain name"),
        ("a..b", "must be a domain name"),
        ("https://pypi.org/x", "is a URL: give its host's name alone"),
        ("http://example.com", "is a URL: give its host's name alone"),
        ("pypi.org/x", "is a URL: give its host's name alone"),
        ("none", "stands alone, in no list"),
        ("Public", "stands alone, in no list"),
        ("publik", "'publik' has no dot and must be a domain name such as example.com.*; public or none"),
        ("localhost", "has no dot"),
        ("example.com:443", "must be a domain name"),
        ("münchen.example", "must be a domain name"),
        ("a" * 64 + ".com", "must be a domain name"),
        (".".join(["a" * 60] * 5), "must be a domain name"),
        ("1.2.3", "must be a domain name"),
        ("1.2.3.4/24", "no bits may be set"),
        ("1.2.3.0/33", "no bits may be set"),
        ("10.1.2.3", "not public"),
        ("192.168.0.0/16", "not public"),
        ("169.254.169.254", "not public"),
        ("127.0.0.1", "not public"),
        ("2001:db8::/32", "IPv6"),
        ("::1", "IPv6"),
    ],
)
def test_anything_else_is_refused_with_the_reason(entry: str, why: str) -> None:
    with pytest.raises(BadEntry, match=why):
        allow_list([entry])


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("example.com", True),
        ("EXAMPLE.com", True),
        ("www.example.com", False),
        ("notexample.com", False),
        ("pypi.org", False),
        ("files.pypi.org", True),
        ("a.b.pypi.org", True),
        ("evilpypi.org", False),
        ("com", False),
        ("", False),
        ("example.com.evil.net", False),
    ],
)
def test_a_name_is_allowed_by_itself_or_by_a_wildcard_above_it(name: str, *, allowed: bool) -> None:
    assert allow_list(["example.com", "*.pypi.org"]).allows_name(name) is allowed


def test_everything_public_allows_every_name_and_nothing_none() -> None:
    assert PUBLIC.allows_name("any.example")
    assert not NOTHING.allows_name("any.example")
    assert allow_list([]) == NOTHING
