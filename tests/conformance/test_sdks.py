"""The unmodified foreign SDKs against a live server, their responses validated strictly."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.live import Live

HERE = Path(__file__).parent
SCRIPT = HERE / "sdk_scenarios.py"
SDKS = HERE.parents[1] / ".sdks"
VERSIONS = sorted(path.stem for path in (HERE / "sdks").glob("[0-9]*.lock"))
"""Of the machines' SDK; that of workflows (`polos-*.lock`) has tests of its own."""
Report = dict[str, str | None]


def _scenarios() -> list[str]:
    functions = [node for node in ast.parse(SCRIPT.read_text()).body if isinstance(node, ast.AsyncFunctionDef)]
    return [f.name for f in functions if any(isinstance(d, ast.Name) and d.id == "scenario" for d in f.decorator_list)]


def run_scenarios(live: Live, version: str, mode: str) -> Report:
    """Run all scenarios with one version's clients of one kind."""
    python = SDKS / version / "bin" / "python"
    if not python.exists():
        pytest.fail("the SDKs are not installed: run `make sdks`")
    with live.client() as api:
        organization = next(key for key in api.get("/v1/keys").json()["items"] if key["name"] == "host")[
            "organization_id"
        ]
    done = subprocess.run(
        [python, SCRIPT, mode],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(HERE.parents[1]),
            "DEDALUS_BASE_URL": live.base_url,
            "DEDALUS_API_KEY": live.api_key,
            "DORMICE_ORGANIZATION": organization,
        },
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    report: Report = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_sdk_is_served(version: str, mode: str, live: Live) -> None:
    report = run_scenarios(live, version, mode)
    assert sorted(report) == sorted(_scenarios())
    assert {scenario: failure for scenario, failure in report.items() if failure is not None} == {}
