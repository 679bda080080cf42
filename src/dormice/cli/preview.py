"""`dormice preview MACHINE PORT`: serve a port, and print the one line that a browser needs."""

from __future__ import annotations

import argparse
import json
import sys

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.previews import creation_options, port
from dormice.cli.printing import json_option
from dormice.client import routes

WAIT_MS = 55_000


def declare(parser: Parser) -> None:
    parser.epilog = (
        "Examples: `dormice preview dm-… 8000` prints a link to what listens on port 8000, for an hour; "
        "`dormice preview dm-… 8000 --visibility public --open` opens an address that anybody may have. "
        "`dormice machines previews` lists and deletes previews and makes further links."
    )
    parser.add_argument("machine_id", metavar="MACHINE")
    parser.add_argument("port", type=port, metavar="PORT")
    creation_options(parser)
    parser.add_argument("--link-seconds", type=int, metavar="N", help="how long the link lets in (default 3600)")
    parser.add_argument("--open", action="store_true", help="open it in a browser as well")
    server_options(parser)
    json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the preview, wait until its machine is awake, and print a link."""
    connection = connect(arguments)
    body = {name: getattr(arguments, name) for name in ("port", "protocol", "visibility", "expires_in_seconds")}
    path = routes.with_query(routes.previews(arguments.machine_id), {"wait_ms": WAIT_MS})
    preview = connection.call("POST", path, body=body, idempotency_key=arguments.idempotency_key).json()
    if preview["status"] in ("failed", "expired", "closed"):
        print(f"dormice: the preview is {preview['status']}: {preview.get('error_message', '')}", file=sys.stderr)
        return 1
    link = preview["url"]
    if preview["visibility"] != "public":
        asked = {"expires_in_seconds": arguments.link_seconds}
        link = connection.call(
            "POST", f"{routes.preview(preview['machine_id'], preview['preview_id'])}/links", body=asked
        ).json()["url"]
    print(json.dumps({**preview, "link": link}) if arguments.json else link)
    if arguments.open:
        import webbrowser  # noqa: PLC0415 - loads much, and hardly anybody needs it

        webbrowser.open(link)
    return 0
