"""What of a request's head a program behind a preview gets to see, and what of its answer's head a client.

Nothing that Dormice took for itself goes in: its keys, its tokens, its cookie. Nothing of one hop goes on to the next. What
says where a request came from is ours alone: a client's own word for it is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from urllib.parse import unquote_plus, urlsplit

from dormice.api.previews.addresses import Target

Headers = list[tuple[bytes, bytes]]

TOKEN = "dormice_token"  # noqa: S105 - the name of a parameter
COOKIE = b"dormice_preview"
MOST_TOKENS = 8
"""Of one request that are looked at."""
_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_HANDSHAKE = b"sec-websocket-"
"""Of one hop as well: each of two WebSockets has its own."""
_OURS = frozenset({b"expect", b"forwarded", b"x-real-ip", b"x-request-id", b"cookie", b"content-length", b"proxy"})
"""`proxy` is none of ours, but no program should see it: CGI makes HTTP_PROXY of it."""
_OURS_BEGIN = (b"x-forwarded-", b"x-dormice-", _HANDSHAKE)
_NOT_OUT = frozenset({b"date", b"x-request-id", b"alt-svc", b"set-cookie", b"location"})
_OF_THE_HOST = frozenset(
    {b"service-worker-allowed", b"clear-site-data", b"strict-transport-security", b"nel", b"report-to", b"reporting-endpoints"}
)  # fmt: skip
"""Of an answer: what would hold for a whole host, where many previews and the API share one."""
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadHead(Exception):
    """A head that cannot be passed on."""


def _of_one_hop(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    named = {
        word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",") if word
    }
    return named | _HOP


def body_framing(headers: Headers) -> Headers:
    """Return the header that says how long the body is; none where there is none. Raises BadHead where that is ambiguous."""
    lengths = [value.strip() for name, value in headers if name == b"content-length"]
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if lengths and codings:
        raise BadHead("Content-Length and Transfer-Encoding exclude each other")
    if codings:
        if codings != [b"chunked"]:
            raise BadHead("Transfer-Encoding must be chunked and nothing else")
        return [(b"transfer-encoding", b"chunked")]
    if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
        raise BadHead("Content-Length must be one number")
    return [(b"content-length", lengths[0])] if lengths else []


def towards_the_port(
    headers: Headers, target: Target, *, client: str, request_id: str, withheld: Collection[bytes]
) -> Headers:
    """Return the head of the request that goes to the port, without how its body is framed. `withheld`: headers that held a key."""
    dropped = _of_one_hop(headers)
    found: Headers = []
    for name, value in headers:
        read = name.replace(b"_", b"-")  # as CGI and WSGI read it, for which both are one
        if {name, read} & dropped or read in _OURS or name in withheld or read.startswith(_OURS_BEGIN):
            continue
        if name == b"referer" and TOKEN.encode() in value:
            continue
        found.append((name, value))
    if cookies := other_cookies(headers):
        found.append((b"cookie", cookies))
    scheme, _, host = target.origin.partition("://")
    said = {"for": client, "proto": scheme, "host": host, "prefix": target.prefix}
    found += [(f"x-forwarded-{name}".encode(), text.encode("latin-1")) for name, text in said.items() if text]
    found.append((b"x-request-id", request_id.encode("latin-1")))
    return found


def towards_the_client(headers: Sequence[tuple[bytes, bytes]], target: Target, status: int) -> Headers:
    """Return the head of the answer. Raises BadHead for one that no client may be shown."""
    dropped = _of_one_hop(headers) | _NOT_OUT
    if target.prefix:
        dropped |= _OF_THE_HOST
    if status in (204, 304) or any(name == b"transfer-encoding" for name, _ in headers):  # which says how long it is
        dropped.add(b"content-length")
    found: Headers = []
    for name, value in headers:
        if _CONTROL.search(value):
            raise BadHead(f"its header {name.decode('latin-1')} has control characters")
        if name == b"set-cookie":
            if (cookie := _cookie_of_a_preview(value, target.prefix)) is not None:
                found.append((name, cookie))
        elif name == b"location":
            found.append((name, _location(value, target)))
        elif name not in dropped and not name.startswith(_HANDSHAKE):
            found.append((name, value))
    return found


def own_tokens(query: bytes) -> tuple[list[str], bytes]:
    """Return the tokens in a query, and the query without them."""
    tokens, rest = [], []
    for part in query.split(b"&") if query else ():
        name, _, value = part.partition(b"=")
        if unquote_plus(name.decode("latin-1")) == TOKEN:
            tokens.append(unquote_plus(value.decode("latin-1")))
        else:
            rest.append(part)
    return tokens[:MOST_TOKENS], b"&".join(rest)


def own_cookies(headers: Headers) -> list[str]:
    """Return the values of our cookie: a neighbour of the same domain may have set another of its name."""
    found = (value.strip().decode("latin-1") for name, value in _cookies(headers) if name == COOKIE)
    return list(islice(found, MOST_TOKENS))


def other_cookies(headers: Headers) -> bytes:
    """Return the cookies without ours, as one header."""
    return b"; ".join(name + b"=" + value if value else name for name, value in _cookies(headers) if name != COOKIE)


def _cookies(headers: Headers) -> list[tuple[bytes, bytes]]:
    found = []
    for header, line in headers:
        if header == b"cookie":
            for part in line.split(b";"):
                name, _, value = part.strip().partition(b"=")
                if name or value:
                    found.append((name.strip(), value))
    return found


def own_cookie(token: str, target: Target, seconds: int) -> bytes:
    """Return the Set-Cookie that lets a browser in for so long, for this preview only."""
    secure = "; Secure" if target.origin.startswith("https:") else ""
    path = f"{target.prefix}/"
    return f"{COOKIE.decode()}={token}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}".encode(
        "latin-1"
    )


def _cookie_of_a_preview(value: bytes, prefix: str) -> bytes | None:
    """A cookie of a program's, kept to its own preview: for no domain, and below its own path."""
    pair, *attributes = [part.strip() for part in value.split(b";")]
    if pair.partition(b"=")[0].strip() == COOKIE:
        return None
    kept = [pair]
    for attribute in attributes:
        word, _, setting = attribute.partition(b"=")
        match word.strip().lower():
            case b"domain":
                continue
            case b"path" if prefix:
                below = setting.strip() if setting.strip().startswith(b"/") else b"/"
                kept.append(b"Path=" + prefix.encode() + below)
            case _:
                kept.append(attribute)
    return b"; ".join(kept)


def _location(value: bytes, target: Target) -> bytes:
    """A redirect of a program that does not know below which path it is served."""
    if not target.prefix:
        return value
    prefix = target.prefix.encode()
    if value.startswith(b"/") and not value.startswith(b"//"):
        return value if value.startswith(prefix + b"/") else prefix + value
    try:
        parts = urlsplit(value.decode("latin-1"))
        own = parts.scheme in ("http", "https") and parts.netloc.lower() == target.origin.partition("://")[2].lower()
    except ValueError:
        own = False
    if not own:
        return value
    path = parts.path or "/"
    if not path.startswith(target.prefix + "/"):
        path = target.prefix + path
    return parts._replace(path=path).geturl().encode("latin-1")
