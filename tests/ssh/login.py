"""A login with OpenSSH, as a client of the API makes one: a key, a session for it, and the files that ssh needs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live import LONGEST_WAIT_MS, Api, new_key

SECONDS = 60
KEYS = {"ed25519": [], "ecdsa": ["-b", "384"], "rsa": ["-b", "2048"]}


@dataclass(frozen=True)
class Login:
    """One session, and where its files are."""

    directory: Path
    session: dict[str, Any]

    @property
    def path(self) -> str:
        """The session's path."""
        return f"/v1/machines/{self.session['machine_id']}/ssh/{self.session['session_id']}"

    @property
    def port(self) -> int:
        """Where the server listens."""
        return int(self.session["connection"]["port"])

    @property
    def host(self) -> str:
        """Who is logged in at which host."""
        return str(self.session["connection"]["endpoint"])

    @property
    def options(self) -> list[str]:
        """What makes ssh, scp and sftp log in with it, and with nothing else."""
        found, directory = self.session["connection"], self.directory
        settings = {
            "CertificateFile": directory / "key-cert.pub",
            "UserKnownHostsFile": directory / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "Port": found["port"],
            "User": found["ssh_username"],
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["-F", "none", "-i", str(directory / "key"), *words]

    def command(self, *words: str, options: list[str] | None = None) -> list[str]:
        """What runs a command of the machine's shell, or with none a login shell."""
        return ["ssh", *self.options, *(options or []), self.host, *words]

    def run(
        self, *words: str, options: list[str] | None = None, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ssh to its end."""
        return finished(self.command(*words, options=options), stdin=stdin, env=env)

    @property
    def remote_shell(self) -> str:
        """What rsync is to use."""
        return " ".join(["ssh", *self.options])


def finished(
    command: list[str], *, stdin: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end."""
    return subprocess.run(command, input=stdin, capture_output=True, timeout=SECONDS, check=False, env=env)


def new_public_key(directory: Path, kind: str = "ed25519") -> str:
    """Make a pair of keys in a directory, and return the public one."""
    words = ["ssh-keygen", "-q", "-t", kind, *KEYS[kind], "-N", "", "-f", str(directory / "key")]
    subprocess.run(words, check=True, timeout=SECONDS)
    return (directory / "key.pub").read_text()


def log_in(api: Api, machine: str, directory: Path, kind: str = "ed25519") -> Login:
    """Make a session, wait until it is ready, and write down what ssh needs."""
    directory.mkdir(exist_ok=True)
    made = api.post(
        f"/v1/machines/{machine}/ssh",
        params={"wait_ms": LONGEST_WAIT_MS},
        json={"public_key": new_public_key(directory, kind)},
        headers=new_key(),
    )
    assert made.status_code == 200, made.text
    session = made.json()
    assert session["status"] == "ready", session
    trust = session["connection"]["host_trust"]
    (directory / "key-cert.pub").write_text(session["connection"]["user_certificate"])
    (directory / "known_hosts").write_text(f"@cert-authority {trust['host_pattern']} {trust['public_key']}\n")
    return Login(directory, session)
