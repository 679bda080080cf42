"""`dormice ssh`: log in to a machine with OpenSSH, by a key and a certificate that are gone afterwards."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.endings import told_to_end
from dormice.client import routes
from dormice.client._sync.connection import Connection

OWN_FAILURE = 255
"""As OpenSSH's own."""
POLL_MS = 30_000
WAKE_SECONDS = 300.0
GRACE_SECONDS = 2.0
"""For ssh to end after it was told to."""
_CONFIG = """Host {name}
    HostName {endpoint}
    Port {port}
    User {user}
    IdentityFile "{directory}/key"
    CertificateFile "{directory}/key-cert.pub"
    IdentitiesOnly yes
    UserKnownHostsFile "{directory}/known_hosts"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    LogLevel ERROR
"""


def declare(parser: Parser) -> None:
    parser.usage = "dormice ssh [options] MACHINE [-- COMMAND [ARGUMENT ...]]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """\
examples:
  dormice ssh dm-…                             a login shell
  dormice ssh dm-… -- 'cd /srv && ls'          a command, run by the machine's shell
  dormice ssh -N -L 8080:localhost:80 dm-…     port 80 of the machine, here at 8080
  dormice ssh --config ~/m dm-…                for scp, sftp, rsync and editors:
      scp -F ~/m/config file dm-…:/srv/
      rsync -e 'ssh -F ~/m/config' -a dir/ dm-…:/srv/dir/

Exit code: that of ssh, which is the command's, or 255 if ssh or Dormice failed."""
    parser.failure_code = parser.usage_code = OWN_FAILURE
    parser.takes_argv, parser.needs_argv = True, False
    parser.add_argument("machine_id", metavar="MACHINE", type=_machine)
    parser.add_argument(
        "-L",
        dest="local",
        action="append",
        default=[],
        metavar="PORT:localhost:PORT",
        help="forward a port to the machine",
    )
    parser.add_argument(
        "-D", dest="dynamic", action="append", default=[], metavar="PORT", help="a SOCKS proxy to the machine's ports"
    )
    parser.add_argument("-N", dest="nothing", action="store_true", help="run nothing, only forward")
    parser.add_argument(
        "-v", dest="verbosity", action="count", default=0, help="say what ssh does; more with -vv and -vvv"
    )
    parser.add_argument("-t", dest="terminal", action="store_true", help="give the command a terminal")
    parser.add_argument(
        "-o", dest="options", action="append", default=[], metavar="OPTION", help="an option of ssh_config"
    )
    parser.add_argument(
        "--config",
        metavar="DIR",
        help="write key, certificate and ssh_config there, and do not log in; good until the session expires",
    )
    server_options(parser)
    parser.set_defaults(run=run)


def _machine(text: str) -> str:
    """The machine, which may stand behind root@. Raises ArgumentTypeError."""
    user, _, machine_id = text.rpartition("@")
    if user not in {"", "root"}:
        raise argparse.ArgumentTypeError(f"{user!r} cannot log in, only root; su is there then")
    return machine_id


def run(arguments: argparse.Namespace) -> int:
    """Log in, and return the exit code."""
    connection = connect(arguments)
    try:
        with told_to_end(), ExitStack() as held:
            if arguments.config is not None:
                return _keep(connection, arguments, held)
            directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="dormice-ssh-")))
            _prepare(connection, arguments.machine_id, directory, held)
            return _ssh(arguments, directory)
    except FileNotFoundError as error:
        print(f"dormice ssh: there is no program {error.filename!r} here: install OpenSSH's client", file=sys.stderr)
    except (_Refused, OSError, subprocess.CalledProcessError) as error:
        print(f"dormice ssh: {error}", file=sys.stderr)
    return OWN_FAILURE


class _Refused(Exception):
    """There is no session; the message says why."""


def _keep(connection: Connection, arguments: argparse.Namespace, held: ExitStack) -> int:
    directory = Path(arguments.config).absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("key", "key.pub"):
        (directory / name).unlink(missing_ok=True)
    session = _prepare(connection, arguments.machine_id, directory, held)
    held.pop_all()
    print(f"ssh -F {shlex.quote(str(directory / 'config'))} {arguments.machine_id}")
    print(f"until {session['expires_at']}; session {session['session_id']}", file=sys.stderr)
    return 0


def _prepare(connection: Connection, machine_id: str, directory: Path, held: ExitStack) -> dict[str, Any]:
    """Make a key, and write down what ssh needs to log in with it. Returns the session, which `held` deletes."""
    key = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    session = _ready(connection, machine_id, (directory / "key.pub").read_text().strip(), held)
    found = session.get("connection") or {}
    trust = found.get("host_trust") or {}
    if not (found.get("user_certificate") and found.get("endpoint") and trust.get("public_key")):
        raise _Refused("the server's answer lacks what is needed to log in")
    (directory / "key-cert.pub").write_text(f"{found['user_certificate']}\n")
    (directory / "known_hosts").write_text(f"@cert-authority {trust['host_pattern']} {trust['public_key']}\n")
    config = _CONFIG.format(
        name=machine_id,
        endpoint=found["endpoint"],
        port=found["port"],
        user=found["ssh_username"],
        directory=_quoted(directory),
    )
    (directory / "config").write_text(config)
    return session


def _quoted(directory: Path) -> str:
    """A path as it stands between the quotation marks of ssh_config."""
    return str(directory).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _ready(connection: Connection, machine_id: str, public_key: str, held: ExitStack) -> dict[str, Any]:
    path, body = routes.ssh_sessions(machine_id), {"public_key": public_key}
    # Not waited for: whoever is told to end meanwhile has to know what there is to delete.
    session: dict[str, Any] = connection.call("POST", path, body=body).json()
    held.callback(connection.call, "DELETE", routes.ssh_session(machine_id, session["session_id"]))
    until = time.monotonic() + WAKE_SECONDS
    while session["status"] not in ("ready", "failed", "expired", "closed"):
        if time.monotonic() > until:
            raise _Refused(f"{machine_id} did not come up in {WAKE_SECONDS:.0f} s")
        one = routes.ssh_session(machine_id, session["session_id"])
        session = connection.call("GET", one, query={"wait_ms": POLL_MS}).json()
    if session["status"] != "ready":
        why = session.get("error_message") or "nothing more is known"
        raise _Refused(f"the session is {session['status']}: {why}")
    return session


def _ssh(arguments: argparse.Namespace, directory: Path) -> int:
    command = ["ssh", "-F", str(directory / "config"), *["-v"] * arguments.verbosity]
    for flag, values in (("-L", arguments.local), ("-D", arguments.dynamic), ("-o", arguments.options)):
        for value in values:
            command += [flag, value]
    command += ["-N"] * arguments.nothing + ["-t"] * arguments.terminal
    if arguments.nothing:
        command += [
            "-o",
            "LogLevel=INFO",
        ]  # why a forward fails; with a terminal it would be told of every good end too
    command += [arguments.machine_id, *(["--", *arguments.argv] if arguments.argv else [])]
    with subprocess.Popen(command) as ssh:
        while True:
            try:
                code = ssh.wait()
            except KeyboardInterrupt:
                continue  # it is for ssh, which ends by it or passes it on
            except SystemExit:
                ssh.terminate()
                try:
                    ssh.wait(GRACE_SECONDS)
                except subprocess.TimeoutExpired:  # it can miss a signal, and would stay until something else happens
                    ssh.kill()
                raise
            return code if code >= 0 else 128 - code
