"""Where the server may push to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormice.domain.errors import Invalid
from dormice.workers.push_rules import URL_CHARACTERS, PushPolicy, check_push_url, push_target

ANYWHERE = PushPolicy(loopback=False)
LOCAL = PushPolicy(loopback=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://worker.example.com",
        "https://worker.example.com:8443/a/path/",
        "HTTP://Worker_1:8000",
        "http://10.1.2.3:8000",
        "http://192.168.0.9",
        "http://100.64.0.9",
        "http://[fd12:3456::1]:8000",
        "http://[2001:db8::1]",
        "http://worker.example.com./",
        "http://0xcafe.example.com",
    ],
)
def test_workers_may_be_anywhere_by_default(url: str) -> None:
    check_push_url(url, ANYWHERE)
    assert push_target(url).host in url.lower()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "http"),
        ("worker.example.com:8000", "http"),
        ("ftp://worker.example.com", "http"),
        ("file:///etc/passwd", "http"),
        ("unix:///run/socket", "http"),
        ("http://", "host"),
        ("http:///path", "host"),
        ("http://:8000", "host"),
        ("http://me:secret@worker.example.com", "password"),
        ("http://me@worker.example.com", "user name"),
        ("http://worker.example.com/#part", "fragment"),
        ("http://worker.example.com/#", "fragment"),
        ("http://worker.example.com/?a=1", "query"),
        ("http://worker.example.com:0", "port"),
        ("http://worker.example.com:65536", "URL"),
        ("http://worker.example.com:x", "URL"),
        ("http://[::1", "URL"),
        ("http://[zz]", "URL"),
        ("http://a b", "printable"),
        ("http://worker.example.com/\r\nHost: other", "printable"),
        ("http://worker.exam\tple.com", "printable"),
        (" http://worker.example.com", "printable"),
        ("http://wörker.example.com", "printable"),
        ("http://" + "a" * URL_CHARACTERS, str(URL_CHARACTERS)),
        ("http://a..b", "host"),
        ("http://.a", "host"),
        ("http://" + "a" * 64, "host"),
        ("http://" + "a." * 127 + "a", "host"),
        ("http://a%2eb", "host"),
        ("http://a\\b", "host"),
        ("http://[fe80::1%25eth0]", "host"),
        ("http://256.256.256.256", "host"),
        ("http://1.2.3.4.5", "host"),
        ("http://worker.example.99", "host"),
    ],
)
def test_a_url_of_another_form_is_refused_with_the_field_and_the_fix(url: str, word: str) -> None:
    with pytest.raises(Invalid, match="push_endpoint_url") as caught:
        check_push_url(url, ANYWHERE)
    assert caught.value.status == 400
    assert caught.value.location == "body.push_endpoint_url"
    assert word in caught.value.message
    assert "secret" not in caught.value.message


NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "fe80::1",
    "febf::1",
    "ff02::1",
    "::",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
]
LOOPBACK = ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"]


def _url(address: str) -> str:
    return f"http://[{address}]:8000" if ":" in address else f"http://{address}:8000"


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize(
    "policy", [LOCAL, PushPolicy(loopback=True, allowed=("0.0.0.0/0", "::/0", "example.com"))], ids=["open", "listed"]
)
def test_some_addresses_are_never_pushed_to(address: str, policy: PushPolicy) -> None:
    assert not policy.allows("worker.example.com", ip_address(address))
    with pytest.raises(Invalid, match="push_endpoint_url"):
        check_push_url(_url(address), policy)


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_pushed_to_in_local_mode_only(address: str) -> None:
    check_push_url(_url(address), LOCAL)
    assert not ANYWHERE.allows("worker.example.com", ip_address(address))
    with pytest.raises(Invalid, match="push_endpoint_url"):
        check_push_url(_url(address), ANYWHERE)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "0"])
def test_an_address_in_disguise_is_judged_as_what_is_connected_to(host: str) -> None:
    with pytest.raises(Invalid, match="not push to"):
        check_push_url(f"http://{host}", ANYWHERE)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "worker.localhost"])
def test_the_local_host_by_name_is_refused_outside_local_mode(host: str) -> None:
    check_push_url(f"http://{host}:8000", LOCAL)
    with pytest.raises(Invalid, match="own host"):
        check_push_url(f"http://{host}:8000", ANYWHERE)


def test_a_list_allows_networks_and_names_and_nothing_else() -> None:
    policy = PushPolicy(loopback=False, allowed=("10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "Example.com"))
    assert policy.allows("a.net", ip_address("10.9.9.9"))
    assert policy.allows("a.net", ip_address("::ffff:10.9.9.9"))
    assert policy.allows("a.net", ip_address("192.0.2.7"))
    assert policy.allows("a.net", ip_address("2001:db8::5"))
    assert policy.allows("example.com", ip_address("203.0.113.1"))
    assert policy.allows("worker.example.com", ip_address("203.0.113.1"))
    assert not policy.allows("badexample.com", ip_address("203.0.113.1"))
    assert not policy.allows("example.com.evil.net", ip_address("203.0.113.1"))
    assert not policy.allows("a.net", ip_address("11.0.0.1"))
    assert not policy.allows("a.net", ip_address("::ffff:11.0.0.1"))
    assert not policy.allows("worker.example.com", ip_address("169.254.169.254"))
    check_push_url("http://any.name.net", policy)  # its address may be in a network of the list
    with pytest.raises(Invalid, match=r"192\.0\.2\.7"):
        check_push_url("http://11.0.0.1", policy)


def test_a_list_of_names_refuses_other_names_at_once() -> None:
    policy = PushPolicy(loopback=False, allowed=("example.com",))
    check_push_url("https://worker.example.com", policy)
    with pytest.raises(Invalid, match=r"allowed are example\.com"):
        check_push_url("https://worker.example.net", policy)


@pytest.mark.parametrize(
    "entry", ["", "10.0.0.1/8", "10.0.0", "10.0.0.0/33", "http://example.com", "*.example.com", "a b"]
)
def test_an_entry_that_is_neither_network_nor_name_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a network"):
        PushPolicy(loopback=False, allowed=(entry,))


@given(
    st.one_of(
        st.text(max_size=80), st.from_regex(r"https?://[\[\]:.%@\\0-9a-fxA-Z-]{0,30}(:[0-9]{0,6})?/?", fullmatch=True)
    )
)
def test_any_text_is_either_a_target_or_refused(text: str) -> None:
    try:
        check_push_url(text, ANYWHERE)
    except Invalid:
        return
    target = push_target(text)
    assert 0 < target.port < 65536
    assert target.literal is None or ANYWHERE.allows(target.host, target.literal)
