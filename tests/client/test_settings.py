"""Where the server and the key are found, and that the key is shown to nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dormice import ConfigurationError, Dormice
from dormice.client import settings
from dormice.client.transport import Request, Timeout


def test_arguments_win_over_the_environment() -> None:
    environment = {"DORMICE_BASE_URL": "http://a", "DORMICE_API_KEY": "k", "DORMICE_ORG_ID": "o"}
    assert settings.resolve(environment=environment)[:3] == ("http://a", "k", "o")
    assert settings.resolve(base_url="https://b/x/", api_key="l", org_id="p", environment=environment)[:3] == (
        "https://b/x",
        "l",
        "p",
    )


def test_on_the_servers_host_the_key_is_in_its_data_directory(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("the-key\n")
    environment = {"DORMICE_DATA_DIR": str(tmp_path)}
    assert settings.resolve(environment=environment)[:3] == ("http://127.0.0.1:7433", "the-key", None)
    with pytest.raises(ConfigurationError, match="DORMICE_API_KEY"):
        settings.resolve(base_url="http://elsewhere.example", environment=environment)


def test_without_a_key_the_error_says_where_it_was_looked_for_and_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set DORMICE_API_KEY, or DORMICE_DATA_DIR to the --data-dir") as error:
        settings.resolve(environment={"DORMICE_DATA_DIR": str(tmp_path)})
    assert str(tmp_path / "api-key") in str(error.value)


_NO_URLS = [
    "127.0.0.1:7433",
    "ftp://a",
    "http://",
    "http:///v1",
    "http://[::1",
    "http://a:0",
    "http://a:70000",
    "http://a:b",
]


@pytest.mark.parametrize("url", [*_NO_URLS, "http://a..b", f"http://{'a' * 64}.b", "http://a?b=c", "http://a/#b"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base URL"):
        settings.resolve(base_url=url, api_key="k", environment={})


@pytest.mark.parametrize("url", ["http://a", "https://a.b.:7433/x", "http://[::1]:7433", "http://[fe80::1%25eth0]"])
def test_what_is_a_url_is_taken(url: str) -> None:
    assert settings.resolve(base_url=url, api_key="k", environment={}).base_url == url


@pytest.mark.parametrize("url", ["http://bob:very-secret@a", "ftp://bob:very-secret@a", "bob:very-secret@a:7433"])
def test_a_url_with_a_password_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no password") as error:
        settings.resolve(base_url=url, api_key="k", environment={})
    assert "very-secret" not in str(error.value)


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError) as error:
        settings.resolve(api_key="sécret\n", environment={})
    assert "cret" not in str(error.value)


def test_no_repr_shows_the_key() -> None:
    with Dormice(api_key="very-secret", base_url="http://127.0.0.1:1") as client:
        shown = [
            repr(client),
            repr(settings.resolve(api_key="very-secret")),
            str(settings.resolve(api_key="very-secret")),
        ]
    request = Request("GET", "http://a", {"authorization": "very-secret"}, b"very-secret", Timeout())
    assert not [text for text in [*shown, repr(request), str(request)] if "very-secret" in text]
