"""From a key to its echo: through the WebSocket of a terminal, and on a bare pseudo terminal of the host."""

from __future__ import annotations

import json
import os
import pty
from base64 import b64decode, b64encode
from time import perf_counter

from websockets.sync.client import ClientConnection, connect

from bench.figures import Result
from bench.stack import WAIT_MS
from bench.wire import BadAnswer
from bench.workbench import Workbench

TITLE = "(17) from a key to its echo in a terminal"
KEYS = b"abcdefghijklmnopqrstuvwxyz"


def run(bench: Workbench) -> Result:
    result = Result("terminal-echo", TITLE)
    ours: list[float] = []
    bare: list[float] = []
    stack = bench.stack
    rounds = bench.amount(40, 8)
    host, other_end = pty.openpty()  # the kernel echoes, as it does for `cat` in the machine
    with stack.machine() as machine, stack.connect() as connection:
        body = {"width": 80, "height": 24, "command": ["cat"]}
        path = f"/v1/machines/{machine}/terminals?wait_ms={WAIT_MS}"
        answer = connection.ask(stack.request("POST", path, body))
        url = json.loads(answer.body)["stream_url"].replace("//bench/", "//{}:{}/".format(*stack.address))
        with connect(url, proxy=None) as terminal:
            _through(terminal, KEYS[:1])
            for _ in range(rounds):
                ours += [_through(terminal, KEYS[n : n + 1]) for n in range(len(KEYS))]
                bare += [_of_the_host(host, KEYS[n : n + 1]) for n in range(len(KEYS))]
            terminal.send(json.dumps({"type": "input", "data": b64encode(b"\x03").decode()}))
    dormice = result.add("Dormice, by WebSocket, every key committed before", "ms", (1000 * took for took in ours))
    result.add("a pseudo terminal of the host", "ms", (1000 * took for took in bare))
    os.close(other_end)
    os.close(host)
    result.bound("milliseconds to the echo", dormice.median, 20)
    return result


def _through(terminal: ClientConnection, key: bytes) -> float:
    message = json.dumps({"type": "input", "data": b64encode(key).decode()})
    began = perf_counter()
    terminal.send(message)
    shown = json.loads(terminal.recv(10))
    took = perf_counter() - began
    if b64decode(shown["data"]) != key:
        raise BadAnswer(str(shown))
    return took


def _of_the_host(terminal: int, key: bytes) -> float:
    began = perf_counter()
    os.write(terminal, key)
    if os.read(terminal, 4096) != key:
        raise BadAnswer("another key came back")
    return perf_counter() - began
