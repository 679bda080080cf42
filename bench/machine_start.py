"""(3) A machine from create to running, and from asleep to the first output of a command."""

from __future__ import annotations

import time
from time import perf_counter

from bench.figures import Result
from bench.stack import WAIT_MS, Stack
from bench.wire import BadAnswer
from bench.workbench import Workbench

TITLE = "(3) machine create to running, wake to first output"
REFILL_SECONDS = 0.4
"""What the pool is given to be full again; with it warm means warm."""


def run(bench: Workbench) -> Result:
    result = Result("machine-start", TITLE)
    warm, cold, docker = bench.stack, bench.cold_stack, bench.docker
    names = (
        "oci",
        "oci output",
        "bare",
        "bare output",
        "warm",
        "cold",
        "warm wake",
        "cold wake",
        "docker",
        "docker output",
    )
    took: dict[str, list[float]] = {name: [] for name in names}
    for each in (warm, cold):
        _create(each)
    for _ in range(bench.amount(20, 5)):
        took["oci"].append(bench.oci.start_detached(bare=False))
        took["bare"].append(bench.oci.start_detached(bare=True))
        time.sleep(REFILL_SECONDS)
        took["warm"].append(_create(warm))
        took["cold"].append(_create(cold))
        took["oci output"].append(bench.oci.first_output(bare=False))
        took["bare output"].append(bench.oci.first_output(bare=True))
        took["warm wake"].append(_wake(warm))
        took["cold wake"].append(_wake(cold))
        with docker.connect() as engine:
            began = perf_counter()
            container = docker.create_container(engine, ["sleep", "infinity"])
            docker.start_container(engine, container)
            took["docker"].append(perf_counter() - began)
            docker.remove_container(engine, container)
            container = docker.create_container(engine, ["echo", "hello"], attached=True)
            began = perf_counter()
            docker.first_output(engine, container)
            took["docker output"].append(perf_counter() - began)
            docker.remove_container(engine, container)
    runtime = bench.oci.program.rpartition("/")[2]
    labels = {
        "oci": f"{runtime} alone, run --detach, as we configure it",
        "bare": f"{runtime} alone, the least configuration",
        "warm": "Dormice, create to running, pool warm",
        "cold": "Dormice, create to running, pool cold",
        "docker": "docker run -d (create and start, by the API)",
        "oci output": f"{runtime} alone, to first output, as we configure it",
        "bare output": f"{runtime} alone, the least configuration",
        "warm wake": "Dormice, wake to first output, pool warm",
        "cold wake": "Dormice, wake to first output, pool cold",
        "docker output": "docker start to first output",
    }
    rows = {name: result.add(label, "ms", (1000 * t for t in took[name])) for name, label in labels.items()}
    result.bound("times the OCI runtime alone, create", rows["warm"].median / rows["oci"].median, 2)
    result.bound("times the OCI runtime alone, wake", rows["warm wake"].median / rows["oci output"].median, 2)
    result.notes.append(
        "alone: the image as overlay, a user namespace, an empty network; no disk, no cgroup, no guest, no record"
    )
    return result


def _create(stack: Stack) -> float:
    with stack.connect() as connection:
        began = perf_counter()
        machine = stack.create_machine(connection)
        took = perf_counter() - began
        stack.delete_machine(connection, machine)
    return took


def _wake(stack: Stack) -> float:
    """Return the seconds from a POST on a sleeping machine to the first byte of output in a stream of events."""
    with stack.machine() as machine, stack.connect() as connection:
        path = f"/v1/machines/{machine}"
        asleep = connection.ask(stack.request("POST", f"{path}/sleep?wait_ms={WAIT_MS}")).json()
        if asleep["phase"] != "sleeping":
            raise BadAnswer(f"the machine does not sleep: {asleep}")
        time.sleep(REFILL_SECONDS)
        began = perf_counter()
        record = stack.execute(connection, machine, ["echo", "hello"], wait_ms=0)
        target = f"{path}/executions/{record['execution_id']}/events"
        message = stack.request("GET", target)
        with stack.connect() as events:
            events.send(message.replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n"))
            events.until(b"event: stdout")
            return perf_counter() - began
