"""`dormice usage`: what machines have used."""

from __future__ import annotations

import argparse
from functools import partial

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.printing import Columns, json_option, show, show_pages
from dormice.client import routes

EXAMPLES = """examples:
  dormice usage
  dormice usage machine-compute --granularity day --period-start 2026-06-01
  dormice usage machine-storage --machine-id ID --json"""
COMPUTE: Columns = {
    "from": lambda row: row["bucket_start"][:16],
    "machine id": lambda row: row["machine_id"],
    "vcpu": lambda row: row["requested_vcpu"],
    "memory": lambda row: f"{row['requested_memory_mib']} MiB",
    "awake": lambda row: f"{row['awake_seconds']} s",
    "cpu": lambda row: f"{row['cpu_millicore_seconds'] / 1000:.1f} s",
    "memory x time": lambda row: f"{row['memory_mib_seconds']} MiB s",
}
STORAGE: Columns = {
    "from": lambda row: row["bucket_start"][:10],
    "machine id": lambda row: row["machine_id"],
    "disk": lambda row: f"{row['logical_storage_bytes'] >> 30} GiB",
    "disk x time": lambda row: f"{row['storage_mib_seconds']} MiB s",
}


REPORTS = {"retrieve": routes.USAGE, "machine-compute": routes.COMPUTE_USAGE, "machine-storage": routes.STORAGE_USAGE}
TAKES = {
    "retrieve": {"period_start"},
    "machine-compute": {"period_start", "period_end", "machine_id", "granularity"},
    "machine-storage": {"period_start", "period_end", "machine_id"},
}


def declare(parser: Parser) -> None:
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(run=partial(_run, parser))
    parser.add_argument(
        "report",
        nargs="?",
        choices=REPORTS,
        default="retrieve",
        help="all machines together (retrieve, which is the default); time awake, processor time and memory of each "
        "(machine-compute); or their disks (machine-storage)",
    )
    parser.add_argument("--period-start", metavar="DAY", help="first day, in UTC (default: the first of this month)")
    parser.add_argument("--period-end", metavar="DAY", help="last day, in UTC (default: until now)")
    parser.add_argument("--machine-id", metavar="ID", help="only of this machine, also a deleted one")
    parser.add_argument("--granularity", choices=("hour", "day"), help="how long a row is (default: hour)")
    server_options(parser)
    json_option(parser)


def _run(parser: Parser, arguments: argparse.Namespace) -> int:
    report = arguments.report
    query = {name: getattr(arguments, name) for name in ("period_start", "period_end", "machine_id", "granularity")}
    for name in query.keys() - TAKES[report]:
        if query[name] is not None:
            parser.error(f"{report} takes no --{name.replace('_', '-')}")
    usage = connect(arguments).call("GET", REPORTS[report], query=query).json()
    if report == "retrieve" or arguments.json:
        show(usage, as_json=arguments.json)
    else:
        show_pages([usage["rows"]], COMPUTE if report == "machine-compute" else STORAGE, as_json=False)
    return 0
