"""Settings: from the command line first, then from the environment (`DORMICE_…`), then the defaults here.

Only app and the CLI read settings; everybody else is given values.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

import msgspec

from dormice.domain.limits import Limits, MachineDefaults

PREFIX = "DORMICE_"
LIMIT_PREFIX = "DORMICE_LIMIT_"
DEFAULT_PREFIX = "DORMICE_DEFAULT_"
MISCONFIGURED = 2
"""The exit code of a process that cannot work as it is set."""
DEFAULT_USER = "dormice"
LOG_LEVELS = ("debug", "info", "warning", "error")
LEAST_ADDRESSES = 8
"""Of a network of machines: its own address, the gateway, the last one, and some machines."""
LEAST_UID = 131_072
"""Below are the host's own users, and machine ranges are 65,536 wide."""
MOST_UID = (1 << 32) - (1 << 26)
"""Leaves room for a whole range of 2^26 below the end of uids."""
COLLECTOR_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Each names a collector of traces. The other variables of OpenTelemetry are read by its SDK."""
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
T = TypeVar("T", Limits, MachineDefaults)
_PROTOCOL = "http/protobuf"
_EVERY_INTERFACE = {"0.0.0.0", "::"}  # noqa: S104 - to know it by
_HOST = re.compile(r"[a-z0-9._:-]{1,253}")
_INSTANCE = re.compile(r"[a-z][a-z0-9]{0,7}")
_PREVIEW_URL = re.compile(
    r"https?://(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?(:[0-9]{1,5})?"
)
_GUEST_PLACES = (
    Path(__file__).resolve().parents[2] / "guest" / "build" / "dormice-guest",
    Path("/usr/local/lib/dormice/dormice-guest"),
    Path("/usr/lib/dormice/dormice-guest"),
)


class SettingsError(Exception):
    """A setting has a value that it cannot have. The message names it and says what it may be."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can decide. Each field is the option `--data-dir` and the variable `DORMICE_DATA_DIR`."""

    data_dir: str = "/var/lib/dormice"
    """Where everything that must last is kept: the store, keys, disks."""
    listen: str = "127.0.0.1:7433"
    """HOST:PORT of the HTTP API. Port 0 takes a free one."""
    image_dir: str = ""
    """Where images are kept; empty: `images` in the data directory."""
    run_dir: str = ""
    """Sockets and mount points; empty: /run/INSTANCE as root, else `run` in the data directory."""
    ssh_listen: str = "127.0.0.1:7422"
    """HOST:PORT where people log in to machines by SSH, or `off`. Port 0 takes a free one."""
    ssh_endpoint: str = ""
    """HOST or HOST:PORT by which clients reach `ssh_listen`; empty: as it is written there, and needed where that is every interface."""
    driver: str = "container"
    """`container`, or `process`: no isolation at all, for hosts without root and for trying out."""
    user: str = "dormice"
    """Whom the server becomes once it listens (when started by root). Without a user `dormice` it is `nobody`; any other
    user must exist."""
    instance: str = "dormice"
    """Names cgroups, network interfaces and rules (1 to 8 of a-z, 0-9, a letter first): two instances on one host need two names."""
    network: str = "10.213.0.0/16"
    """The addresses of machines, at least 8. Two instances need two ranges."""
    first_uid: int = 1_000_000_000
    """Start of the host's uids that machines use, 65,536 each: 131,072 to 4,227,858,432 (2^32 - 2^26).
    Two instances need two ranges, 2^26 apart."""
    pool_size: int = 2
    """Disks, user namespaces and networks that are prepared in advance."""
    disk_mib_per_second: int = 256
    """What one machine may read, and write, of its disk, so that it leaves something to the others and to the store; 0 sets no bound. Hosts
    without the cgroup controller `io` or `blkio` have none."""
    storage_reserve_gib: int = 2
    """Storage of the host that is never promised to machines, and that artifacts leave free."""
    guest: str = ""
    """The guest's binary; empty: where `make install` or a package puts it."""
    local_mode: bool = False
    """The workflow surface (/api/v1, /internal) answers programs of this host without a key, and projects are made when they are first named.
    Only where `listen` is a loopback address."""
    terminals_by_id: bool = False
    """Whoever knows the id of a terminal, which cannot be guessed, may open its stream without a key. The clients 0.2 to 0.4 of the SDK send none
    when they connect to one."""
    push_allow: str = ""
    """Where workers that are called may live, besides which none may: networks and names, with commas between (`10.1.0.0/16,workers.example`, which
    covers what is below it). Empty: anywhere but link-local and metadata addresses, and loopback ones only in local mode."""
    webhook_allow: str = ""
    """Where webhooks may lead besides public addresses: networks and names, with commas between (`10.1.0.0/16,hooks.internal`, which covers what
    is below it). Link-local and metadata addresses are never sent to."""
    preview_url: str = ""
    """Where previews are seen from outside: `https://*.preview.example.org` gives each a host name of its own (as `http://*.localhost:7433`
    does for the browsers of this host), `https://dormice.example.org` a path of that host. Empty: a path of the host that a client used, and in
    local mode `http://*.localhost:PORT`. Programs that do not trust each other need host names of their own."""
    log_level: str = "info"
    """debug, info, warning or error."""
    api_key: str = ""
    """The host's admin key; empty: made at the first start. Only from the environment. A secret."""

    def __repr__(self) -> str:
        return f"Settings(data_dir={self.data_dir!r}, listen={self.listen!r}, driver={self.driver!r})"

    @property
    def data(self) -> Path:
        """The data directory, absolute."""
        return Path(self.data_dir).absolute()

    @property
    def images(self) -> Path:
        """The directory of images."""
        return Path(self.image_dir).absolute() if self.image_dir else self.data / "images"

    @property
    def run(self) -> Path:
        """The directory of sockets and mount points."""
        if self.run_dir:
            return Path(self.run_dir).absolute()
        return Path("/run") / self.instance if os.geteuid() == 0 else self.data / "run"

    @property
    def node_socket(self) -> Path:
        """Where the server waits for the node."""
        return self.run / "node.sock"

    @property
    def key_file(self) -> Path:
        """Where the host's admin key is kept, mode 0600."""
        return self.data / "api-key"

    @property
    def guest_program(self) -> Path:
        """The guest's binary. Raises SettingsError when there is none."""
        if self.guest:
            return Path(self.guest).absolute()
        for place in _GUEST_PLACES:
            if place.exists():
                return place
        raise SettingsError("the guest's binary is missing: run `make install`, or set DORMICE_GUEST")

    def address(self) -> tuple[str, int]:
        """Return host and port of `listen`. Raises SettingsError."""
        return _address("listen", self.listen, "127.0.0.1:7433")

    def ssh_address(self) -> tuple[str, int] | None:
        """Return host and port of `ssh_listen`, None if it is `off`. Raises SettingsError."""
        if self.ssh_listen == "off":
            return None
        return _address("ssh_listen", self.ssh_listen, "127.0.0.1:7422, or off")

    def ssh_name(self) -> tuple[str, int | None]:
        """Return the host by which clients reach the SSH server, and the port where that is another one. Raises SettingsError."""
        host, separator, port = self.ssh_endpoint.rpartition(":")
        if not separator or self.ssh_endpoint.endswith("]"):
            host, port = self.ssh_endpoint, ""
        host = host.strip("[]").lower()
        if not host and (address := self.ssh_address()) is not None:
            host = address[0].lower()
            if host in _EVERY_INTERFACE:
                raise SettingsError(
                    f"ssh_endpoint must be set, because ssh_listen is {self.ssh_listen}: every interface"
                )
        if (port and not (port.isdecimal() and 0 < int(port) < 65_536)) or not _HOST.fullmatch(host or "-"):
            raise SettingsError(f"ssh_endpoint is {self.ssh_endpoint!r}, must be HOST or HOST:PORT")
        return host, int(port) if port else None

    def machine_network(self) -> IPv4Network:
        """Return `network`. Raises SettingsError."""
        try:
            network = IPv4Network(self.network)
        except ValueError as error:
            raise SettingsError(f"network: {error}") from None
        if network.num_addresses < LEAST_ADDRESSES:
            raise SettingsError(f"network is {self.network!r}, must have at least {LEAST_ADDRESSES} addresses")
        return network

    def environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` makes these settings again."""
        return {PREFIX + field.upper(): str(getattr(self, field)) for field in self.__struct_fields__}


def from_environment(environment: Mapping[str, str] | None = None, **overrides: str) -> Settings:
    """Make settings of overrides and DORMICE_ variables. Raises SettingsError."""
    variables = os.environ if environment is None else environment
    values = {
        field: variables[PREFIX + field.upper()]
        for field in Settings.__struct_fields__
        if PREFIX + field.upper() in variables
    } | overrides
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(str(error)) from None
    _check(settings)
    return settings


def _address(name: str, value: str, example: str) -> tuple[str, int]:
    host, separator, port = value.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"{name} is {value!r}, must be HOST:PORT such as {example}")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - `:7433` asks for every interface


def _check(settings: Settings) -> None:
    settings.address()
    settings.ssh_name()
    settings.machine_network()
    if settings.driver not in ("container", "process"):
        raise SettingsError(f"driver is {settings.driver!r}, must be container or process")
    if settings.preview_url and not _PREVIEW_URL.fullmatch(settings.preview_url):
        raise SettingsError(
            f"preview_url is {settings.preview_url!r}, must be http(s)://HOST[:PORT] or http(s)://*.DOMAIN[:PORT], in lower case"
        )
    if not _INSTANCE.fullmatch(settings.instance):
        raise SettingsError(f"instance is {settings.instance!r}, must be 1 to 8 of a-z and 0-9, a letter first")
    if settings.log_level not in LOG_LEVELS:
        raise SettingsError(f"log_level is {settings.log_level!r}, must be debug, info, warning or error")
    if not LEAST_UID <= settings.first_uid <= MOST_UID:
        raise SettingsError(f"first_uid is {settings.first_uid}, must be {LEAST_UID} to {MOST_UID}")
    for name in ("pool_size", "storage_reserve_gib", "disk_mib_per_second"):
        if getattr(settings, name) < 0:
            raise SettingsError(f"{name} is {getattr(settings, name)}, must be 0 or more")


def check_key(secret: str, bounds: Limits, source: str) -> None:
    """Check the host's admin key, which came from `source`, without showing it. Raises SettingsError."""
    if not bounds.key_min_chars <= len(secret) <= bounds.key_max_chars:
        raise SettingsError(
            f"{source}: an API key has {bounds.key_min_chars} to {bounds.key_max_chars} characters, not {len(secret)}"
        )


def has_collector(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether spans are to be exported. Raises SettingsError when by another protocol than we speak."""
    variables = os.environ if environment is None else environment
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(variables.get, COLLECTOR_VARIABLES)):
        return False
    named = next(filter(None, map(variables.get, _PROTOCOL_VARIABLES)), _PROTOCOL)
    if named != _PROTOCOL:
        raise SettingsError(f"{_PROTOCOL_VARIABLES[1]} is {named!r}, must be {_PROTOCOL} (a collector's port 4318)")
    return True


def limits(environment: Mapping[str, str] | None = None) -> Limits:
    """Return the limits, each of which DORMICE_LIMIT_NAME may set. Raises SettingsError."""
    return _overridden(Limits(), LIMIT_PREFIX, os.environ if environment is None else environment)


def machine_defaults(environment: Mapping[str, str] | None = None) -> MachineDefaults:
    """Return what a machine gets by default, each of which DORMICE_DEFAULT_NAME may set. Raises SettingsError."""
    return _overridden(MachineDefaults(), DEFAULT_PREFIX, os.environ if environment is None else environment)


def _overridden(values: T, prefix: str, variables: Mapping[str, str]) -> T:
    names = {prefix + field.name.upper(): field.name for field in fields(values)}
    changes: dict[str, float | str] = {}
    for variable in sorted(variables):
        if not variable.startswith(prefix):
            continue
        if variable not in names:
            raise SettingsError(f"{variable} is no setting; docs/configuration.md lists them all")
        name = names[variable]
        changes[name] = _value(variable, variables[variable], type(getattr(values, name)))
    return replace(values, **changes)  # type: ignore[arg-type] # each value has its field's type


def _value(variable: str, text: str, kind: type[float | str]) -> float | str:
    try:
        value = kind(text)
    except ValueError:
        raise SettingsError(f"{variable} is {text!r}, must be a value of type {kind.__name__}") from None
    if not isinstance(value, str) and not (math.isfinite(value) and value >= 0):
        raise SettingsError(f"{variable} is {text!r}, must be a number from 0 on")
    return value
