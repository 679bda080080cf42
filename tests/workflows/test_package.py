"""The SDK as its users see it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from dormice import workflows
from dormice.workflows import Context, Queue, Retry, Worker, Workflow, errors, workflow


def test_every_exported_name_is_there() -> None:
    assert workflows.__all__ == sorted(workflows.__all__)
    assert all(hasattr(workflows, name) for name in workflows.__all__)


def test_the_sdk_knows_nothing_of_the_server() -> None:
    code = "import dormice.workflows, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name.split(".")[1] for name in done.stdout.split() if name.startswith("dormice.")}
    assert ours == {"client", "workflows"}
    assert not {"httpx", "litestar", "apsw"} & set(done.stdout.split())


def test_the_tree_in_the_docstring_of_errors_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = next((word for word in line.split() if word.isidentifier() and hasattr(errors, word)), None)
        if name is None or not line.startswith("    "):
            continue
        depth = (line.index(name) - 4) // 4
        above[depth:] = [name]
        drawn[name] = above[depth - 1] if depth else "Exception"
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert drawn == {each.__name__: each.__bases__[0].__name__ for each in classes}


async def _fed(ctx: Context, number: int) -> str:
    return f"{number}"


async def _plain(ctx: Context) -> None:
    return None


def test_a_workflow_is_what_its_function_says() -> None:
    fed, plain = workflow(_fed), workflow(id="other", queue="mail", timeout=5)(_plain)
    assert (fed.id, fed.payload_type, fed.result_type, fed.queue) == ("_fed", int, str, None)
    assert (plain.id, plain.takes_payload, plain.queue, plain.timeout) == ("other", False, Queue("mail"), 5)


def test_what_is_no_workflow_is_refused() -> None:
    async def many(ctx: Context, one: int, two: int) -> None: ...
    def blocking(ctx: Context) -> None: ...

    for function in (many, blocking, lambda: None):
        with pytest.raises(TypeError, match="workflow"):
            Workflow(function)  # type: ignore[arg-type] # what a user may do
    with pytest.raises(ValueError, match="timeout must be at least 1 second"):
        workflow(timeout=0)(_plain)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attempts": 0}, "attempts must be a whole number of at least 1, not 0"),
        ({"attempts": 2.5}, "attempts must be a whole number of at least 1, not 2.5"),
        ({"first_pause": -1}, "first_pause must be a number of at least 0, not -1"),
        ({"factor": 0.5}, "factor must be a number of at least 1, not 0.5"),
        ({"longest_pause": float("nan")}, "longest_pause must be a number of at least 0, not nan"),
        ({"longest_pause": float("inf")}, "longest_pause must be a number of at least 0, not inf"),
    ],
)
def test_a_retry_that_is_none_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Retry(**values)


@pytest.mark.parametrize(
    ("retry", "message"),
    [
        (5, r"retry must be a Retry, such as Retry\(attempts=5\), not 5"),
        (Retry(attempts=1002), "retry.attempts of a workflow must be at most 1001, not 1002"),
        (Retry(factor=101), "retry.factor of a workflow must be at most 100, not 101"),
        (Retry(longest_pause=86_401), "retry.longest_pause of a workflow must be at most 86400 s, a day, not 86401"),
    ],
)
def test_a_retry_that_the_server_would_not_keep_is_refused(retry: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        workflow(retry=retry)(_plain)


def test_a_worker_needs_workflows_with_ids_of_their_own() -> None:
    with pytest.raises(ValueError, match="at least one workflow"):
        Worker([])
    with pytest.raises(ValueError, match="two workflows have the id '_plain'"):
        Worker([workflow(_plain), workflow(_plain)])
    with pytest.raises(ValueError, match="the queue 'q' has the limit 2 with workflow 'a' and 5 with 'c'"):
        Worker(
            [workflow(id=name, queue=Queue("q", limit))(_plain) for name, limit in (("a", 2), ("b", None), ("c", 5))]
        )
    Worker([workflow(id=name, queue=Queue("q", limit))(_plain) for name, limit in (("a", 2), ("b", None), ("c", 2))])
    with pytest.raises(ValueError, match="must be at least 1"):
        Worker([workflow(_plain)], max_concurrent=0)


def test_pauses_grow_to_the_longest() -> None:
    retry = Retry(first_pause=1, factor=2, longest_pause=5)
    for failures, longest in ((1, 1), (2, 2), (3, 4), (4, 5), (400, 5)):
        assert longest / 2 <= retry.pause(failures) <= longest
