"""Request bodies of the machine surface, and what they order. Forms are checked here; the engine judges the rest."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from dormice.api.http.call import INT64_MAX
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.machines.autosleep import autosleep_seconds
from dormice.domain.egress import NOTHING, PUBLIC, BadEntry, Egress, allow_list
from dormice.domain.execution import StdinMode
from dormice.domain.limits import Limits, MachineDefaults
from dormice.engine.orders import ExecutionOrder, MachineOrder, MachinePatch

_SHOWN = 64
_IMAGE_CHARS = 255


class CreateExecutionRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A command to be run."""

    command: Annotated[
        list[str], Meta(description="argv: the program, looked up on PATH, and its arguments. No shell is involved.")
    ]
    cwd: Annotated[str | None, Meta(description="Working directory. A relative one is taken from the default.")] = None
    env: Annotated[
        dict[str, str] | None, Meta(description="Added to the machine's environment. Values are secrets.")
    ] = None
    stdin: Annotated[
        str | None, Meta(description="Standard input as UTF-8, then end of file. Absent: end of file at once.")
    ] = None
    stdin_open: Annotated[bool, Meta(description="Standard input stays open for `PUT …/stdin`; excludes `stdin`.")] = (
        False
    )
    timeout_ms: Annotated[
        int | None, Meta(description="Killed, with all its children, this long after its start. 0: no timeout.")
    ] = None
    start_timeout_ms: Annotated[
        int | None, Meta(description="Expires when it has not started this long after its creation. 0: the default.")
    ] = None
    artifacts: Annotated[
        list[str] | None,
        Meta(
            description=(
                "Patterns of files to keep once it has ended, however it ended: absolute, or from `cwd` on; `*`, `?`, `[...]`, and "
                "`**` for any number of directories."
            )
        ),
    ] = None


class AllowList(Struct, forbid_unknown_fields=True):
    """The names and networks that a machine may reach."""

    allow: Annotated[
        list[str],
        Meta(
            description="Names such as `example.com`, `*.example.com` for all below it, IPv4 networks such as `1.2.3.0/24`."
        ),
    ]


EgressRequest = Annotated[
    Literal["public", "none"] | AllowList,
    Meta(description="What it may reach: all that is public, nothing, or the names and networks of a list."),
]


class CreateMachineRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A machine to be made; what is absent takes its default."""

    vcpu: Annotated[float | None, Meta(description="Processors, in quarters.")] = None
    memory_mib: Annotated[int | None, Meta(description="Memory in MiB.")] = None
    storage_gib: Annotated[int | None, Meta(description="Disk in GiB.")] = None
    autosleep: Annotated[
        str | None, Meta(description="Idle time until it is put to sleep: `30m`, `1w3d`, seconds, or `never`.")
    ] = None
    image: Annotated[str | None, Meta(description="Name of an imported image.")] = None
    egress: EgressRequest | None = None
    snapshot: Annotated[
        str | None, Meta(description="Id of a snapshot: the disk begins as a copy of it. Excludes `image`.")
    ] = None


class ForkRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A copy of a machine to be made; what is absent is as there."""

    vcpu: Annotated[float | None, Meta(description="Processors, in quarters.")] = None
    memory_mib: Annotated[int | None, Meta(description="Memory in MiB.")] = None
    storage_gib: Annotated[int | None, Meta(description="Disk in GiB; not smaller than the one that is copied.")] = None
    autosleep: Annotated[
        str | None, Meta(description="Idle time until it is put to sleep: `30m`, `1w3d`, seconds, or `never`.")
    ] = None
    egress: EgressRequest | None = None


class UpdateMachineRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What of a machine is to change."""

    vcpu: Annotated[float | None, Meta(description="Processors, in quarters.")] = None
    memory_mib: Annotated[int | None, Meta(description="Memory in MiB.")] = None
    storage_gib: Annotated[int | None, Meta(description="Disk in GiB; it can grow only.")] = None
    autosleep: Annotated[
        str | None, Meta(description="Idle time until it is put to sleep: `30m`, `1w3d`, seconds, or `never`.")
    ] = None
    egress: EgressRequest | None = None


def execution_order(body: CreateExecutionRequest, limits: Limits, defaults: MachineDefaults) -> ExecutionOrder:
    """Return the order. Raises Invalid with everything that is wrong."""
    cwd = posixpath.join(defaults.cwd, body.cwd) if body.cwd else defaults.cwd
    faults = [
        *command_faults(body.command, limits),
        *text_faults(body.cwd or "", "cwd", limits.cwd_bytes, "cwd_bytes"),
        *environment_faults(body.env or {}, limits),
        *_time_faults(body.timeout_ms, "timeout_ms", limits.timeout_ms),
        *_time_faults(body.start_timeout_ms, "start_timeout_ms", limits.start_timeout_ms),
        *_pattern_faults(body.artifacts or [], limits),
    ]
    if body.stdin_open and body.stdin is not None:
        faults.append(Fault("stdin and stdin_open exclude each other: send one of them", "body.stdin_open"))
    if faults:
        raise InvalidRequest(faults)
    mode = StdinMode.OPEN if body.stdin_open else StdinMode.GIVEN if body.stdin else StdinMode.EMPTY
    return ExecutionOrder(
        command=tuple(body.command),
        cwd=cwd,
        env=body.env or {},
        stdin_mode=mode,
        stdin=(body.stdin or "").encode(),
        timeout_ms=body.timeout_ms or None,
        start_timeout_ms=body.start_timeout_ms or None,
        artifacts=tuple(body.artifacts or ()),
    )


def machine_order(body: CreateMachineRequest, limits: Limits) -> MachineOrder:
    """Return the order. Raises Invalid."""
    idle, faults = _autosleep(body.autosleep, limits)
    faults += _size_faults(body)
    egress, more = _egress(body.egress, limits)
    faults += more
    if body.image is not None:
        faults += text_faults(body.image, "image", _IMAGE_CHARS, "an image's name")
    if faults:
        raise InvalidRequest(faults)
    return MachineOrder(
        vcpu=body.vcpu,
        memory_mib=body.memory_mib,
        storage_gib=body.storage_gib,
        image=body.image,
        autosleep_seconds=idle,
        egress=egress,
        snapshot=body.snapshot,
    )


def fork_order(body: ForkRequest, limits: Limits) -> MachineOrder:
    """Return the order. Raises Invalid."""
    idle, faults = _autosleep(body.autosleep, limits)
    egress, more = _egress(body.egress, limits)
    faults += [*_size_faults(body), *more]
    if faults:
        raise InvalidRequest(faults)
    return MachineOrder(
        vcpu=body.vcpu,
        memory_mib=body.memory_mib,
        storage_gib=body.storage_gib,
        autosleep_seconds=idle,
        egress=egress,
    )


def machine_patch(body: UpdateMachineRequest, limits: Limits) -> MachinePatch:
    """Return the change. Raises Invalid."""
    idle, faults = _autosleep(body.autosleep, limits)
    egress, more = _egress(body.egress, limits)
    faults += [*_size_faults(body), *more]
    if faults:
        raise InvalidRequest(faults)
    return MachinePatch(
        vcpu=body.vcpu,
        memory_mib=body.memory_mib,
        storage_gib=body.storage_gib,
        autosleep_seconds=idle,
        egress=egress,
    )


def command_faults(command: Sequence[str], limits: Limits) -> Iterator[Fault]:
    """Yield what is wrong with an argv that a client asks for."""
    if not command or not command[0]:
        where = "body.command[0]" if command else "body.command"
        yield Fault("command needs a program: its first element must not be empty", where)
    if len(command) > limits.argv_count:
        yield Fault(f"command must have at most {limits.argv_count} elements (argv_count)", "body.command")
        return
    total = 0
    for index, argument in enumerate(command):
        total += _size(argument) + 1
        yield from text_faults(argument, f"command[{index}]", limits.argv_bytes, "argv_bytes")
    if total > limits.argv_total_bytes:
        message = f"command must have at most {limits.argv_total_bytes} bytes in all (argv_total_bytes)"
        yield Fault(f"{message}: pass data in stdin or a file", "body.command")


def environment_faults(env: Mapping[str, str], limits: Limits) -> Iterator[Fault]:
    """Yield what is wrong with variables that a client asks for."""
    if len(env) > limits.env_count:
        yield Fault(f"env must have at most {limits.env_count} variables (env_count)", "body.env")
        return
    total = 0
    for name, value in env.items():
        total += _size(name) + _size(value) + 2
        shown = name[:_SHOWN]
        if not name or "=" in name:
            yield Fault("a name in env must not be empty and must have no '='", "body.env")
        yield from text_faults(name, "a name in env", limits.env_name_bytes, "env_name_bytes", "body.env")
        yield from text_faults(value, f"env.{shown}", limits.env_value_bytes, "env_value_bytes", "body.env")
    if total > limits.env_total_bytes:
        yield Fault(f"env must have at most {limits.env_total_bytes} bytes in all (env_total_bytes)", "body.env")


def text_faults(text: str, name: str, limit: int, limit_name: str, location: str | None = None) -> Iterator[Fault]:
    """Yield what is wrong with a text that goes to the kernel."""
    if "\0" in text:
        yield Fault(f"{name} must have no NUL character: the kernel would cut it there", location or f"body.{name}")
    if len(text) > limit // 4 and _size(text) > limit:
        yield Fault(f"{name} must have at most {limit} bytes ({limit_name})", location or f"body.{name}")


def _pattern_faults(patterns: Sequence[str], limits: Limits) -> Iterator[Fault]:
    if len(patterns) > limits.artifact_patterns:
        message = f"artifacts must have at most {limits.artifact_patterns} patterns (artifact_patterns)"
        yield Fault(message, "body.artifacts")
        return
    for index, pattern in enumerate(patterns):
        if not pattern:
            yield Fault("a pattern in artifacts must not be empty", f"body.artifacts[{index}]")
        yield from text_faults(pattern, f"artifacts[{index}]", limits.path_bytes, "path_bytes")


def _time_faults(value: int | None, name: str, maximum: int) -> Iterator[Fault]:
    if value is not None and not 0 <= value <= maximum:
        yield Fault(f"{name} must be from 1 to {maximum}, or 0 for none of your own", f"body.{name}", _shown(value))


def _egress(body: Literal["public", "none"] | AllowList | None, limits: Limits) -> tuple[Egress | None, list[Fault]]:
    if not isinstance(body, AllowList):
        return {None: None, "public": PUBLIC, "none": NOTHING}[body], []
    if len(body.allow) > limits.egress_entries:
        message = f"egress.allow must have at most {limits.egress_entries} entries (egress_entries)"
        return None, [Fault(message, "body.egress.allow")]
    faults = []
    for index, entry in enumerate(body.allow):
        try:
            allow_list([entry])
        except BadEntry as bad:
            faults.append(Fault(str(bad), f"body.egress.allow[{index}]"))
    return (None, faults) if faults else (allow_list(body.allow), [])


def _size_faults(body: CreateMachineRequest | UpdateMachineRequest | ForkRequest) -> list[Fault]:
    sizes = (("memory_mib", body.memory_mib), ("storage_gib", body.storage_gib))
    return [
        Fault(f"{name} must be a positive 64-bit integer", f"body.{name}", _shown(value))
        for name, value in sizes
        if value is not None and not 0 < value <= INT64_MAX
    ]


def _autosleep(text: str | None, limits: Limits) -> tuple[int | None, list[Fault]]:
    if text is None:
        return None, []
    seconds = autosleep_seconds(text)
    if seconds is None:
        message = "autosleep must be units in descending order such as 30m, 2h or 1w3d, seconds such as 1800, or never"
        return None, [Fault(message, "body.autosleep")]
    if seconds > limits.autosleep_seconds_max:
        message = f"autosleep must be at most {limits.autosleep_seconds_max} seconds (autosleep_seconds_max), or never"
        return None, [Fault(message, "body.autosleep")]
    return seconds, []


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _shown(value: int) -> int | None:
    """A number is shown again only if every client can read it."""
    return value if -INT64_MAX <= value <= INT64_MAX else None
