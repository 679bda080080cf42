"""The commands of the load: each leaves a mark where it begins and ends, and writes what can be told from its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

START, END = "start", "end"

_WRITE = r"""
token=$1 marks=$2 steps=$3 lines=$4 pause=$5
echo "$token start" >> "$marks"
exec 9<> <(:)
for ((step = 0; step < steps; step++)); do
  out='' err=''
  for ((line = step * lines; line < (step + 1) * lines; line++)); do
    out+="$token out $line"$'\n' err+="$token err $line"$'\n'
  done
  printf %s "$out"
  printf %s "$err" >&2
  read -rt "$pause" -u 9
done
echo "$token end" >> "$marks"
"""

_ECHO = r"""
token=$1 marks=$2
echo "$token start" >> "$marks"
cat
echo "$token end" >> "$marks"
"""


class Command(Protocol):
    """What is run, and what it writes when nobody stops it."""

    def argv(self, token: str, marks: str) -> list[str]:
        """Return the command; `token` names it inside, `marks` is the file for its marks."""
        ...

    def output(self, token: str) -> tuple[bytes, bytes]:
        """Return all of its standard output and standard error."""
        ...


@dataclass(frozen=True, slots=True)
class Writes:
    """Writes `lines` numbered lines to both streams, `steps` times, with `pause` seconds between."""

    steps: int
    lines: int
    pause: float

    def argv(self, token: str, marks: str) -> list[str]:
        numbers = [str(self.steps), str(self.lines), f"{self.pause:.2f}"]
        return ["/bin/bash", "-c", _WRITE, "write", token, marks, *numbers]

    def output(self, token: str) -> tuple[bytes, bytes]:
        numbers = range(self.steps * self.lines)
        return lines(token, "out", numbers), lines(token, "err", numbers)


@dataclass(frozen=True, slots=True)
class Echoes:
    """Writes its standard input to its standard output."""

    stdin: bytes

    def argv(self, token: str, marks: str) -> list[str]:
        return ["/bin/bash", "-c", _ECHO, "echo", token, marks]

    def output(self, token: str) -> tuple[bytes, bytes]:
        del token
        return self.stdin, b""


def lines(token: str, stream: str, numbers: range) -> bytes:
    """Return numbered lines as one of the commands writes them."""
    return b"".join(f"{token} {stream} {number}\n".encode() for number in numbers)
