"""What goes through the proxy, and how it fails."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.live import Live
from tests.previews.conftest import Program, echoed
from tests.wait import wait_until


def _raw(live: Live, request: bytes) -> bytes:
    """Send bytes, and return all that comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(request)
        parts = []
        while data := connection.recv(65_536):
            parts.append(data)
    return b"".join(parts)


def _path(url: str) -> str:
    return httpx.URL(url).path


def test_a_request_goes_through_as_it_came(url: str, browser: httpx.Client) -> None:
    said, headers = echoed(
        browser.post(
            f"{url}a%2Fb/../c?x=1&y=%20z", content=b"body", headers={"X-Mine": "1", "Authorization": "Basic YTpi"}
        )
    )
    assert (said["method"], said["size"]) == ("POST", 4)
    assert said["target"].endswith("?x=1&y=%20z")
    assert headers["x-mine"] == ["1"]
    assert headers["authorization"] == ["Basic YTpi"]  # it is the program's, not ours
    assert headers["host"] == [httpx.URL(url).netloc.decode()]
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert headers["x-forwarded-proto"] == ["http"]
    assert headers["x-forwarded-host"] == headers["host"]
    assert headers["x-forwarded-prefix"] == [_path(url).rstrip("/")]


def test_a_path_that_climbs_stays_the_programs_own(live: Live, url: str) -> None:
    path = f"{_path(url)}../../v1/limits"
    answer = _raw(live, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert b'"target": "/../../v1/limits"' in answer


def test_a_client_cannot_say_where_it_comes_from_or_change_what_the_hop_is(url: str, browser: httpx.Client) -> None:
    claims = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Anything": "1",
        "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6",
        "Connection": "keep-alive, x-secret",
        "X-Secret": "1",
        "TE": "trailers",
        "Proxy-Authorization": "Basic YTpi",
        "X-Request-Id": "mine",
        "X_Forwarded_For": "6.6.6.6",
        "X_Real-IP": "6.6.6.6",
        "X_Dormice_Anything": "1",
        "Content_Length": "5",
        "Proxy_Authorization": "Basic YTpi",
        "Proxy": "http://6.6.6.6/",
        "Other_Name": "1",
    }
    answer = browser.get(f"{url}x", headers=claims)
    _, headers = echoed(answer)
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert headers["x-request-id"] == [answer.headers["x-request-id"]]
    assert not {
        "x-forwarded-anything",
        "forwarded",
        "x-real-ip",
        "x-secret",
        "te",
        "proxy-authorization",
        "proxy",
    } & set(headers)
    assert [name for name in headers if "_" in name] == ["other_name"]


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_go_both_ways_whole(url: str, browser: httpx.Client, *, chunked: bool) -> None:
    sent = os.urandom(3_000_000)
    pieces = (sent[start : start + 70_000] for start in range(0, len(sent), 70_000))
    said, headers = echoed(browser.put(f"{url}upload", content=pieces if chunked else sent))
    assert (said["size"], said["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())
    assert ("transfer-encoding" in headers) is chunked
    assert len(browser.get(f"{url}big").content) == 8_000_000


def test_trailers_are_dropped_and_early_hints_too(url: str, browser: httpx.Client) -> None:
    answer = browser.get(f"{url}chunked")
    assert answer.content == b"abcdef"
    assert "trailer" not in answer.headers
    assert browser.get(f"{url}early").content == b"after hints"


def test_chunks_say_how_long_an_answer_is_whatever_else_does(url: str, browser: httpx.Client) -> None:
    assert browser.get(f"{url}both-lengths").content == b"hello"


def test_answers_without_a_body(url: str, browser: httpx.Client) -> None:
    head = browser.head(f"{url}x")
    assert (head.status_code, head.content, head.headers["x-app"]) == (200, b"", "yes")
    assert browser.get(f"{url}nothing").status_code == 204
    not_modified = browser.get(f"{url}not-modified")
    assert (not_modified.status_code, not_modified.headers["etag"]) == (304, "x")
    assert browser.get(f"{url}x").status_code == 200


def test_events_stream_at_once_and_a_listener_that_leaves_is_noticed(
    program: Program, url: str, browser: httpx.Client
) -> None:
    with browser.stream("GET", f"{url}events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: one"
        assert program.api.get(f"{url}go").text == "gone\n"
        assert [next(lines), next(lines)] == ["", "data: two"]
    program.seen(url, "listener left")


def test_a_client_that_gives_up_is_noticed_by_the_program(program: Program, live: Live, url: str) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(f"GET {_path(url)}silent HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        program.seen(url, "asked")
    program.seen(url, "asker left")


def test_connections_are_used_again(url: str, browser: httpx.Client) -> None:
    numbers = {echoed(browser.get(f"{url}x"))[0]["connection"] for _ in range(20)}
    assert len(numbers) <= 2


def test_a_connection_that_was_closed_meanwhile_is_made_again(url: str, browser: httpx.Client) -> None:
    for _ in range(10):
        assert browser.get(f"{url}last").content == b"last"
        assert browser.post(f"{url}x", content=b"1").status_code == 200


@pytest.mark.parametrize("path", ["half", "half-chunked"])
def test_half_an_answer_is_told_from_a_whole_one(url: str, browser: httpx.Client, path: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        browser.get(f"{url}{path}")
    assert browser.get(f"{url}x").status_code == 200


def test_an_answer_that_comes_before_the_body_is_whole(url: str, browser: httpx.Client) -> None:
    answer = browser.post(f"{url}refused-body", content=bytes(100_000))
    assert answer.status_code in (
        413,
        502,
    )  # what has not been read when a connection is closed may take the answer along
    assert browser.get(f"{url}x").status_code == 200


@pytest.mark.parametrize("path", ["nonsense", "long-head"])
def test_what_is_no_answer_is_a_bad_gateway(url: str, browser: httpx.Client, path: str) -> None:
    answer = browser.get(f"{url}{path}")
    assert (answer.status_code, answer.headers["x-dormice-preview-error"]) == (502, "port_failed")
    assert answer.text.startswith("Bad gateway: what listens on the port failed")


def test_a_port_where_nothing_listens_is_a_bad_gateway(program: Program, browser: httpx.Client) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = program.preview(port=free.getsockname()[1], visibility="public")["url"]
        answer = browser.get(url)
    assert (answer.status_code, answer.headers["x-dormice-preview-error"]) == (502, "port_refused")
    assert "nothing listens on port" in answer.text


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(live: Live, url: str) -> None:
    head = f"POST {_path(url)}x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    assert b'"size": 3' in answer
    assert b"expect" not in answer.lower()


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Content-Length: 4\r\nContent-Length: 5",
        b"Transfer-Encoding : chunked",
        b"Content-Length: +4",
    ],
)
def test_a_body_whose_length_is_ambiguous_is_refused(live: Live, program: Program, url: str, framing: bytes) -> None:
    request = (
        b"POST %ssmuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"
    )
    answer = _raw(live, request % (_path(url).encode(), framing))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert len(re.findall(rb"HTTP/1.1 [0-9]", answer)) == 1
    assert not [word for word in program.api.get(f"{url}seen").json() if "smuggled" in word or "evil" in word]


def test_cookies_and_redirects_of_a_program_stay_below_its_path(url: str, browser: httpx.Client) -> None:
    answer = browser.get(f"{url}cookies")
    below = _path(url)
    assert answer.headers.get_list("set-cookie") == [
        f"sid=1; Path={below}; HttpOnly",
        f"deep=2; Path={below}deep",
        "plain=3",
    ]
    assert "service-worker-allowed" not in answer.headers
    assert "clear-site-data" not in answer.headers
    assert browser.get(f"{url}login").headers["location"] == f"{below}inside?x=1"


def test_an_address_without_its_last_slash_leads_to_the_one_with_it(url: str, browser: httpx.Client) -> None:
    answer = browser.get(url.rstrip("/") + "?a=b")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{_path(url)}?a=b")


def test_a_slow_program_holds_up_nobody_but_itself(program: Program, live: Live, url: str) -> None:
    quick = program.preview(visibility="public")["url"]
    held = []
    for _ in range(140):  # more than a preview has connections
        connection = socket.create_connection(("127.0.0.1", live.port), timeout=20)
        connection.sendall(f"GET {_path(url)}silent HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        held.append(connection)
    try:
        wait_until(lambda: program.api.get(f"{quick}seen").json().count("asked") >= 128, 20, "all connections are held")
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: httpx.get(f"{quick}x", trust_env=False, timeout=20), range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert program.api.get("/v1/limits").status_code == 200
    finally:
        for connection in held:
            connection.close()
    wait_until(lambda: program.api.get(f"{url}x").status_code == 200, 20, "it is served again")
