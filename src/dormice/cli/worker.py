"""`dormice worker`: runs the workflows of a module of the user's."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dormice import lifeline
from dormice.cli.commands import Parser
from dormice.cli.connect import server_options

if TYPE_CHECKING:
    from dormice.workflows import Worker

WRONG = 2
LOOK_SECONDS = 0.3
_NOT_LOOKED_INTO = {"__pycache__", "node_modules", "site-packages", "venv"}


class TargetError(Exception):
    """There is nothing to be run. The message says why."""


def declare(parser: Parser) -> None:
    server_options(parser)
    parser.add_argument(
        "target",
        metavar="MODULE[:NAME]",
        help="a module, found from the current directory on: its Worker, else all its workflows; or what NAME is in it",
    )
    parser.add_argument("--project", metavar="ID", help="the project (DORMICE_PROJECT_ID; else the default one)")
    parser.add_argument(
        "--deployment", metavar="ID", help="the version of the code (DORMICE_DEPLOYMENT_ID; else `default`)"
    )
    parser.add_argument("--max-concurrent", metavar="N", type=int, default=100, help="runs at once (100)")
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=float,
        default=10,
        help="how long runs may go on after SIGTERM or Ctrl-C (10)",
    )
    parser.add_argument(
        "--reload", action="store_true", help="start again when a .py file below this directory changes"
    )
    parser.epilog = (
        "After SIGTERM or Ctrl-C, runs that do not end in time are given back; a second one ends the worker at once."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    if arguments.reload:
        return _reloading([word for word in sys.argv[1:] if word != "--reload"])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    options = {
        "base_url": arguments.base_url,
        "project_id": arguments.project,
        "deployment_id": arguments.deployment,
        "max_concurrent": arguments.max_concurrent,
        "grace_seconds": arguments.grace,
    }
    try:
        worker = _worker(arguments.target, options)
    except (TargetError, ValueError) as error:
        print(f"dormice: {error}", file=sys.stderr)
        return WRONG
    _end_with_parent()
    worker.serve()
    return 0


def _worker(target: str, options: Mapping[str, Any]) -> Worker:
    from dormice.workflows import Worker, Workflow  # noqa: PLC0415 - loaded when needed

    module_name, _, name = target.partition(":")
    found = _found(module_name, name)
    if isinstance(found, Worker):
        return found
    workflows = list(found.values()) if isinstance(found, dict) else found
    workflows = list(workflows) if isinstance(workflows, list | tuple) else [workflows]
    if name and not all(isinstance(each, Workflow) for each in workflows):
        raise TargetError(f"{target} is neither a Worker, nor a workflow, nor a list of workflows")
    workers = [each for each in workflows if isinstance(each, Worker)]
    if len(workers) == 1:
        return workers[0]
    if workers:
        raise TargetError(f"{module_name} has several Workers: say which, as {module_name}:NAME")
    own = list(dict.fromkeys(each for each in workflows if isinstance(each, Workflow)))
    if not own:
        raise TargetError(f"{module_name} has no workflow: functions become workflows by @workflow")
    return Worker(own, **options)


def _found(module_name: str, name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise TargetError(f"there is no module {module_name!r}; it is looked for from {Path.cwd()} on") from None
    except (ValueError, TypeError) as error:
        raise TargetError(f"{module_name!r} cannot be imported: {error}") from error
    if not name:
        return dict(vars(module))
    try:
        return getattr(module, name)
    except AttributeError:
        raise TargetError(f"{module_name} has no {name!r}") from None


def _reloading(words: list[str]) -> int:
    """Keep a worker in a process of its own, and start it again when a file changes. If this process is killed, the pipe ends and the worker with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pipe, _ = os.pipe()
    environment = {**os.environ, lifeline.VARIABLE: str(pipe)}
    command = [sys.executable, "-P", "-m", "dormice.cli", *words]
    while True:
        seen = dict(_files(Path.cwd()))
        child = subprocess.Popen(command, env=environment, pass_fds=(pipe,), process_group=0)
        try:
            while dict(_files(Path.cwd())) == seen:
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            return _ended(child)
        print("dormice: a file has changed: starting again", file=sys.stderr)
        child.terminate()
        child.wait()


def _end_with_parent() -> None:
    """As SIGTERM does, end this worker when the process is gone that starts it again."""
    if (pipe := lifeline.take()) is not None:
        os.set_inheritable(pipe, False)
        threading.Thread(target=_follow, args=(pipe,), name="lifeline", daemon=True).start()


def _follow(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _ended(child: subprocess.Popen[bytes]) -> int:
    """End a worker; each further signal is passed on."""
    while True:
        child.terminate()
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def _files(directory: Path) -> Iterator[tuple[str, int]]:
    """Yield the Python files below a directory and when each was changed."""
    for where, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_LOOKED_INTO]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(where, name)  # noqa: PTH118 - pathlib would take most of the time
                try:
                    yield path, os.stat(path).st_mtime_ns  # noqa: PTH116 - likewise
                except OSError:  # it has just gone
                    continue
