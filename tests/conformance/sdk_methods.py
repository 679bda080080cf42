# mypy: ignore-errors
"""Every method of every version of the foreign SDK, one line each: what it is called with. A version that lacks one passes it over.

They are called in this order, with one machine and one ended execution; `known.made` has what earlier ones returned.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SIZES = {"vcpu": 0.5, "memory_mib": 256, "storage_gib": 1}


@dataclass
class Known:
    """What there is to call methods with."""

    organization_id: str
    machine: Mapping[str, str]
    """`machine_id`, as an argument."""
    execution: Mapping[str, str]
    """`machine_id` and `execution_id`."""
    made: dict[str, Any] = field(default_factory=dict)
    """What methods have returned, by name."""

    def of(self, maker: str, identity: str) -> Mapping[str, str]:
        """What names the thing on the machine that a method has made."""
        return {**self.machine, identity: getattr(self.made[maker], identity)}


METHODS: Mapping[str, Callable[[Known], Mapping[str, Any]]] = {
    "machines.create": lambda _: SIZES,
    "machines.list": lambda _: {"limit": 5},
    "machines.retrieve": lambda known: known.machine,
    "machines.update": lambda known: {**known.machine, "memory_mib": 320},
    "machines.watch": lambda known: known.machine,
    "machines.executions.create": lambda known: {**known.machine, "command": ["true"]},
    "machines.executions.list": lambda known: {**known.machine, "limit": 5},
    "machines.executions.retrieve": lambda known: known.execution,
    "machines.executions.events": lambda known: {**known.execution, "limit": 5},
    "machines.executions.output": lambda known: known.execution,
    "machines.executions.delete": lambda known: known.execution,
    "machines.executions.logs.retrieve": lambda known: known.execution,
    "machines.executions.logs.reauthorize": lambda known: known.execution,
    "machines.executions.logs.create_token": lambda known: known.execution,
    "machines.autoresizing.retrieve": lambda known: known.machine,
    "machines.autoresizing.update": lambda known: {**known.machine, "enabled": True},
    "organization.autoresizing.retrieve": lambda _: {},
    "organization.autoresizing.update": lambda _: {"enabled": True},
    "orgs.usage.retrieve": lambda known: {"org_id": known.organization_id},
    "orgs.usage.get_machine_usage": lambda known: {"org_id": known.organization_id, "granularity": "day"},
    "orgs.usage.get_machine_storage_usage": lambda known: {"org_id": known.organization_id},
    "usage.retrieve": lambda _: {"period_start": "2026-01-01"},
    "usage.machine_compute": lambda known: {**known.machine, "granularity": "hour"},
    "usage.machine_storage": lambda known: known.machine,
    "machines.terminals.create": lambda known: {**known.machine, "width": 80, "height": 24},
    "machines.terminals.retrieve": lambda known: known.of("machines.terminals.create", "terminal_id"),
    "machines.terminals.list": lambda known: {**known.machine, "limit": 5},
    "machines.terminals.connect": lambda known: known.of("machines.terminals.create", "terminal_id"),
    "machines.terminals.delete": lambda known: known.of("machines.terminals.create", "terminal_id"),
    "machines.previews.create": lambda known: {**known.machine, "port": 8000, "protocol": "http", "visibility": "org"},
    "machines.previews.retrieve": lambda known: known.of("machines.previews.create", "preview_id"),
    "machines.previews.list": lambda known: {**known.machine, "limit": 5},
    "machines.previews.delete": lambda known: known.of("machines.previews.create", "preview_id"),
    "machines.reboot": lambda known: known.machine,
    "machines.sleep": lambda known: known.machine,
    "machines.wake": lambda known: known.machine,
    "machines.delete": lambda known: known.machine,
}
LATER = frozenset({"machines.artifacts", "machines.ssh"})
"""Resources that are not served yet."""


def methods_of(client: Any) -> Iterator[str]:
    """Yield the name of every method of a client's resources, such as `machines.executions.create`."""
    for name, resource in _resources(client):
        yield from (
            f"{name}.{method}" for method, _ in inspect.getmembers(resource, inspect.ismethod) if method[0] != "_"
        )
        yield from (f"{name}.{method}" for method in methods_of(resource))


def _resources(owner: Any) -> Iterator[tuple[str, Any]]:
    for name, _ in inspect.getmembers(type(owner), lambda member: hasattr(member, "__get__") and not callable(member)):
        if name[0] != "_" and not name.startswith("with_"):
            resource = getattr(owner, name)
            if type(resource).__name__.removeprefix("Async").endswith("Resource"):
                yield name, resource
