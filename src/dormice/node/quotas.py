"""Quotas that the kernel keeps for the whole host, where one machine could use up what all others need.

What a machine may have of each is bounded elsewhere: tasks by its pids cgroup, open files by its memory, terminals by its mount.
So the host's own quotas must be no smaller than what all machines together were promised.
"""

from __future__ import annotations

import logging
from pathlib import Path

_log = logging.getLogger(__name__)
SYSCTL = Path("/proc/sys")
_MOST_TASKS = 1 << 22

HOST = {
    "fs/file-max": (1 << 63) - 1,
    "fs/inotify/max_user_instances": 1_024,
    "fs/inotify/max_user_watches": 131_072,
    "kernel/pid_max": _MOST_TASKS,
    "kernel/pty/max": 1 << 18,
    "kernel/threads-max": _MOST_TASKS,
}
"""Of inotify and of what a user has in general, the host's quota applies to each machine; of the rest, to all together."""


def raise_to(wanted: dict[str, int]) -> None:
    """Raise quotas, never lower them. One that this host does not let us raise is told in the log: machines may feel it."""
    for name, value in wanted.items():
        file = SYSCTL / name
        try:
            if int(file.read_text()) < value:
                file.write_text(str(value))
        except OSError as error:
            _log.warning("%s stays below %d, so one machine may use it up for all: %s", name, value, error.strerror)
