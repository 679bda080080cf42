"""The page on which a person answers what a run asks. It has no script: a form, and what the server says of it.

All text of runs is escaped, and the policy in the head forbids the browser everything but our one style.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

from dormice.api.http.replies import Reply
from dormice.api.workflows.approval_form import Form, FormField

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; } main { max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } p { margin: 0 0 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
pre { background: color-mix(in srgb, currentColor 8%, transparent); padding: .8rem; border-radius: .4rem; overflow: auto; max-height: 24rem; }
label { display: block; font-weight: 600; margin-top: 1rem; } small { display: block; font-weight: 400; opacity: .8; }
input:not([type=checkbox]), select, textarea { box-sizing: border-box; width: 100%; padding: .5rem; font: inherit; }
.fault { color: #c22; } .buttons { margin-top: 1.5rem; display: flex; gap: .8rem; }
button { font: inherit; padding: .5rem 1.4rem; border-radius: .4rem; border: 1px solid currentColor; cursor: pointer; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def notice(title: str, text: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a page that says something."""
    return _page(title, f"<h1>{escape(title)}</h1><p>{escape(text)}</p>", status, headers)


def form_page(
    form: Form,
    question: int,
    *,
    sent: Mapping[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
) -> Reply:
    """Return the page with the form; with `faults`, what is wrong with what was sent. `question` tells this one from later ones."""
    parts = [f"<h1>{escape(form.title)}</h1>"]
    if form.description:
        parts.append(f"<p>{escape(form.description)}</p>")
    if form.shown:
        parts.append(f"<pre>{escape(form.shown)}</pre>")
    parts.append(f'<form method="post"><input type="hidden" name="question" value="{question}">')
    faults = faults or {}
    if form.free:
        text = "{}" if sent is None else sent.get("answer", "")
        parts.append(
            f'<label>Answer, as JSON{_fault(faults, "answer")}<textarea name="answer" rows="6">\n{escape(text)}</textarea></label>'
        )
    parts += [_row(one, sent, faults) for one in form.fields]
    parts.append(_fault(faults, "decision"))
    parts.append(_buttons(form))
    return _page(form.title, "".join(parts) + "</form>", 422 if faults else 200)


def _page(title: str, main: str, status: int, headers: Mapping[str, str] | None = None) -> Reply:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{main}</main></body></html>"
    )
    return Reply(
        text.encode(), status=status, media_type=b"text/html; charset=utf-8", headers={**_HEADERS, **(headers or {})}
    )


def _buttons(form: Form) -> str:
    if not form.decides:
        return '<div class="buttons"><button>Send</button></div>'
    return (
        '<div class="buttons"><button name="decision" value="approve">Approve</button>'
        '<button name="decision" value="reject" formnovalidate>Reject</button></div>'
    )


def _row(one: FormField, sent: Mapping[str, str] | None, faults: Mapping[str, str]) -> str:
    head = escape(one.label) + (f"<small>{escape(one.help)}</small>" if one.help else "") + _fault(faults, one.name)
    required = " required" if one.required else ""
    if one.kind == "boolean":
        on = one.default is True if sent is None else bool(sent.get(one.name))
        return f'<label><input type="checkbox" name="{one.name}" value="on"{" checked" if on else ""}> {head}</label>'
    if one.kind == "select":
        return f'<label>{head}<select name="{one.name}"{required}>{_options(one, sent)}</select></label>'
    value = escape(_given(one.default) if sent is None else sent.get(one.name, ""))
    if one.kind == "textarea":
        return f'<label>{head}<textarea name="{one.name}" rows="4"{required}>\n{value}</textarea></label>'
    kind = 'type="number" step="any"' if one.kind == "number" else 'type="text"'
    return f'<label>{head}<input {kind} name="{one.name}" value="{value}"{required}></label>'


def _options(one: FormField, sent: Mapping[str, str] | None) -> str:
    chosen = None if sent is None else sent.get(one.name)
    found = ['<option value=""></option>']
    for index, (label, value) in enumerate(one.options):
        on = value == one.default and one.default is not None if sent is None else chosen == str(index)
        found.append(f'<option value="{index}"{" selected" if on else ""}>{escape(label)}</option>')
    return "".join(found)


def _fault(faults: Mapping[str, str], name: str) -> str:
    return f'<small class="fault" role="alert">{escape(faults[name])}</small>' if name in faults else ""


def _given(default: Any) -> str:
    return "" if default is None or isinstance(default, (dict, list, bool)) else str(default)
