"""Who is let in to a preview, and what of his credentials goes no further."""

from __future__ import annotations

import socket
from collections.abc import Callable

import httpx
import pytest

from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.previews.conftest import Program, echoed, run_program

NewClient = Callable[..., Api]


def _link(program: Program, preview: dict[str, str], **body: object) -> str:
    made = program.api.post(f"{_record(preview)}/links", json=body).raise_for_status().json()
    return str(made["url"])


def _record(preview: dict[str, str]) -> str:
    return f"/v1/machines/{preview['machine_id']}/previews/{preview['preview_id']}"


def test_a_private_preview_opens_to_the_key_that_made_it_and_to_no_other(
    program: Program, browser: httpx.Client, new_client: NewClient
) -> None:
    url = program.preview()["url"]
    assert program.api.get(f"{url}x").status_code == 200
    nobody = browser.get(f"{url}x")
    assert (nobody.status_code, nobody.headers["x-dormice-preview-error"]) == (401, "auth_required")
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    with new_client() as colleague, new_client("strangers") as stranger:
        assert colleague.get(f"{url}x").status_code == 403
        assert stranger.get(f"{url}x").status_code == 404
    assert browser.get(f"{url}x", headers={"X-Api-Key": "dmk_wrong"}).status_code == 401


def test_a_preview_of_the_organization_opens_to_its_keys(
    program: Program, browser: httpx.Client, new_client: NewClient
) -> None:
    url = program.preview(visibility="org")["url"]
    assert browser.get(f"{url}x").status_code == 401
    with new_client() as colleague, new_client("strangers") as stranger:
        assert colleague.get(f"{url}x").status_code == 200
        assert stranger.get(f"{url}x").status_code == 404


def test_a_preview_of_another_organization_is_none(program: Program, new_client: NewClient) -> None:
    preview = program.preview(visibility="org")
    with new_client("strangers") as stranger:
        assert stranger.get(_record(preview)).status_code == 404
        assert stranger.delete(_record(preview)).status_code == 404
        assert stranger.post(f"{_record(preview)}/links").status_code == 404
        assert stranger.get(f"/v1/machines/{program.machine}/previews").status_code == 404
        made = stranger.post(f"/v1/machines/{program.machine}/previews", json={"port": 1}, headers=new_key())
        assert made.status_code == 404


def test_a_key_of_ours_never_reaches_the_program(program: Program, live: Live, url: str) -> None:
    private = program.preview()["url"]
    for address in (url, private):
        for headers in ({"Authorization": f"Bearer {live.api_key}"}, {"X-Api-Key": live.api_key}):
            _, seen = echoed(httpx.get(f"{address}x", headers=headers, trust_env=False))
            assert live.api_key not in str(seen)
            assert not {"authorization", "x-api-key"} & set(seen)
    both = {"X-Api-Key": live.api_key, "Authorization": "Bearer the-programs-own"}
    _, seen = echoed(httpx.get(f"{private}x", headers=both, trust_env=False))
    assert seen["authorization"] == ["Bearer the-programs-own"]
    assert "x-api-key" not in seen


def test_a_signed_link_becomes_a_cookie_and_neither_reaches_the_program(
    program: Program, browser: httpx.Client, live: Live
) -> None:
    preview = program.preview()
    link = _link(program, preview) + "&page=2"
    first = browser.get(link.replace("/?", "/deep/page?"))
    below = httpx.URL(preview["url"]).path
    assert (first.status_code, first.headers["location"]) == (303, f"{below}deep/page?page=2")
    assert first.headers["cache-control"] == "no-store"
    cookie = first.headers["set-cookie"]
    assert f"Path={below};" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert 3_500 < int(cookie.partition("Max-Age=")[2].partition(";")[0]) <= 3_600
    said, seen = echoed(browser.get(first.headers["location"], headers={"Referer": link}))
    assert said["target"] == "/deep/page?page=2"
    assert "dormice" not in str(said).replace(preview["preview_id"], "")
    assert "referer" not in seen
    token = link.partition("dormice_token=")[2].partition("&")[0]
    said, seen = echoed(
        browser.post(
            f"{preview['url']}x?a=1&dormice_token={token}", headers={"Cookie": f"a=1; dormice_preview={token}; b=2"}
        )
    )
    assert said["target"] == "/x?a=1"
    assert seen["cookie"] == ["a=1; b=2"]
    log = live.log.read_text()
    assert f"/p/{preview['preview_id']}" in log
    assert token not in log
    assert "deep/page" not in log  # nor what lies below: it may be a secret of the program's


def test_in_local_mode_previews_have_hosts_of_their_own(start_live: StartLive) -> None:
    with start_live(DORMICE_LOCAL_MODE="true") as live, live.client() as api:
        program = run_program(api, api.create_machine(autosleep="never"))
        preview = program.preview(visibility="public")
        host = f"{preview['preview_id']}.localhost:{live.port}"
        assert preview["url"] == f"http://{host}/"
        said, _ = echoed(httpx.get(f"{live.base_url}/x", headers={"Host": host}, trust_env=False))
        assert said["target"] == "/x"
        assert httpx.get(f"{live.base_url}/p/{preview['preview_id']}/x", trust_env=False).status_code == 404


@pytest.mark.parametrize("visibility", ["private", "org"])
def test_what_lets_in_to_one_preview_lets_in_to_no_other(
    program: Program, browser: httpx.Client, visibility: str
) -> None:
    one, other = program.preview(visibility=visibility), program.preview(visibility=visibility)
    token = _link(program, one).partition("dormice_token=")[2]
    assert browser.get(f"{other['url']}x?dormice_token={token}").status_code == 401
    assert browser.get(f"{other['url']}x", headers={"Cookie": f"dormice_preview={token}"}).status_code == 401
    assert browser.get(f"{one['url']}x", headers={"Cookie": f"dormice_preview={token}"}).status_code == 200
    key, expiry, mac = token.split(".")
    for changed in (
        f"{key}.{int(expiry) + 1}.{mac}",
        f"{key[:-1]}g.{expiry}.{mac}",
        f"{key}.{expiry}.{mac[:-1]}g",
        "",
        "..",
        "x",
    ):
        assert browser.get(f"{one['url']}x", headers={"Cookie": f"dormice_preview={changed}"}).status_code == 401


def test_a_link_ends_with_its_time_and_with_its_key(
    program: Program, browser: httpx.Client, api: Api, live: Live
) -> None:
    made = api.post("/v1/keys", json={"name": "soon revoked"}).json()
    with live.client(headers={"Authorization": f"Bearer {made['key']}"}) as owner:
        preview = Program(owner, program.machine, program.port, program.record).preview()
        link = owner.post(f"{_record(preview)}/links").json()["url"]
        assert program.api.post(f"{_record(preview)}/links").status_code == 403
    cookie = {"Cookie": f"dormice_preview={link.partition('dormice_token=')[2]}"}
    assert browser.get(f"{preview['url']}x", headers=cookie).status_code == 200
    api.delete(f"/v1/keys/{made['key_id']}").raise_for_status()
    assert browser.get(f"{preview['url']}x", headers=cookie).status_code == 401
    assert browser.get(link).status_code == 401


def test_a_cookie_does_nothing_for_a_page_of_another_host(program: Program, browser: httpx.Client) -> None:
    preview = program.preview()
    token = _link(program, preview).partition("dormice_token=")[2]
    foreign = {"Cookie": f"dormice_preview={token}", "Origin": "http://evil.example"}
    assert browser.post(f"{preview['url']}x", headers=foreign).status_code == 401
    own = {**foreign, "Origin": f"http://{browser.base_url.netloc.decode()}"}
    assert browser.post(f"{preview['url']}x", headers=own).status_code == 200


def test_an_id_that_is_none_is_told_so(browser: httpx.Client) -> None:
    for segment in ("pv-none", "..", "%2e%2e", "", "pv-%00", "v1", "p" * 5_000):
        answer = browser.get(httpx.URL(f"{browser.base_url}/p/").copy_with(raw_path=f"/p/{segment}/x".encode()))
        assert answer.status_code == 404, segment


def test_header_injection_is_refused(live: Live, url: str) -> None:
    path = httpx.URL(url).path
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(f"GET {path}x HTTP/1.1\r\nHost: x\r\nX-A: 1\nX-B: 2\r\nConnection: close\r\n\r\n".encode())
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 400 ") or b"x-b" in answer.lower()  # a header of its own, or none
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(f"GET {path}x HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


def test_previews_with_hosts_of_their_own(start_live: StartLive) -> None:
    with start_live(DORMICE_PREVIEW_URL="https://*.preview.test:8443") as live, live.client() as api:
        program = run_program(api, api.create_machine(autosleep="never"))
        preview = program.preview(visibility="public")
        name = f"{preview['preview_id']}.preview.test:8443"
        assert preview["url"] == f"https://{name}/"
        with httpx.Client(base_url=live.base_url, trust_env=False, headers={"Host": name}) as browser:
            said, seen = echoed(browser.get("/v1/limits"))
            assert said["target"] == "/v1/limits"  # the program's, not ours
            assert seen["host"] == seen["x-forwarded-host"] == [name]
            assert seen["x-forwarded-proto"] == ["https"]
            assert "x-forwarded-prefix" not in seen
            assert browser.get("/login").headers["location"] == "/inside?x=1"
            assert browser.get("/cookies").headers.get_list("set-cookie")[0] == "sid=1; Path=/; HttpOnly"
            unknown = browser.get("/v1/limits", headers={"Host": "pv-none.preview.test:8443"})
            assert unknown.status_code == 404
            assert browser.get("/v1/limits", headers={"Host": "preview.test:8443"}).status_code == 401  # the API's own
            assert api.get(f"/p/{preview['preview_id']}/x").status_code == 404
            private = program.preview()
            browser.headers["Host"] = f"{private['preview_id']}.preview.test:8443"
            link = httpx.URL(_link(program, private))
            climbing = httpx.URL(live.base_url).copy_with(raw_path=b"//evil.example/?" + link.query)
            moved = browser.send(httpx.Request("GET", climbing, headers=browser.headers))
            assert moved.headers["location"] == f"{private['url'].rstrip('/')}//evil.example/"
            assert "; Secure" in moved.headers["set-cookie"]
            assert "Path=/;" in moved.headers["set-cookie"]
