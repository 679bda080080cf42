"""What the foreign SDK tells of its work, read back.

With a worker of its own: FastAPI traces requests itself by now, and from a worker's second run on the SDK lets its spans fall into the trace of the
request that brought the run, under an id that nobody knows.
"""

from __future__ import annotations

from tests.conformance.workflows.world import Client, World
from tests.wait import wait_until

ORDER = {"customer": "c", "lines": [{"article": "a", "pieces": 2}]}


def test_the_spans_of_a_run_can_be_read(world: World, client: Client) -> None:
    """The worker sends them in batches, some seconds later; a trace has the id of its root run."""
    run = client.start("receipt", ORDER)
    world.ended(run)
    path = f"/api/v1/traces/{run.replace('-', '')}"
    with world.http() as http:
        wait_until(lambda: http.get(path).status_code == 200, 20, "the trace of a run")
        trace = http.get(path).json()
    assert trace["root_span_name"] == "workflow.receipt"
    assert {"workflow.receipt", "step.fee"} <= {span["name"] for span in trace["spans"]}
