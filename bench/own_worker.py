"""Our own worker on a stack of the benchmark's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers.driven_peer import worker
from bench.peers.processes import Child
from bench.stack import Stack
from dormice.workflows import Workflows


def client(stack: Stack) -> Workflows:
    """Return a client of the stack's own project."""
    return Workflows(base_url=f"http://{stack.address[0]}:{stack.address[1]}", api_key=stack.key)


@contextmanager
def own_worker(stack: Stack) -> Iterator[Child]:
    """A worker with all workflows of the benchmarks, which fetches up to 64 runs."""
    settings = {
        "DORMICE_BASE_URL": f"http://{stack.address[0]}:{stack.address[1]}",
        "DORMICE_API_KEY": stack.key,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with worker(sys.executable, "dormice_worker", [], stack.directory, settings) as child:

        def known() -> bool:
            with stack.connect() as connection:
                answer = connection.ask(stack.request("GET", "/api/v1/workers/active"))
            return b'"worker_ids":["' in answer.body

        child.wait_ready(known)
        yield child
