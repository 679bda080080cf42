"""`dormice doctor` on the host that runs the tests, whatever it lacks."""

from __future__ import annotations

import json

from tests.cli.conftest import Dormice


def test_every_check_is_told_and_the_exit_code_is_the_verdict(dormice: Dormice) -> None:
    done = dormice("doctor", "--json")
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert {check["status"] for check in checks} <= {"ok", "warn", "fail"}
    assert all(check["fix"] for check in checks if check["status"] == "fail")
    assert done.returncode == (1 if any(check["status"] == "fail" for check in checks) else 0)


def test_people_get_a_line_and_the_fix_below_it(dormice: Dormice) -> None:
    text = dormice("doctor", "--guest", "/nowhere").stdout.decode()
    assert "Machines can" in text.splitlines()[-1]
    assert text.splitlines()[0][:4].strip() in {"ok", "warn", "fail"}
