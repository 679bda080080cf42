"""Dormice: durable executions on machines that sleep.

    from dormice import Dormice

    client = Dormice()
    machine = client.machines.create(wait_ms=30_000)
    print(client.machines.run(machine.machine_id, ["uname", "-a"]).stdout.decode())

Names are loaded when they are first used, so `import dormice` itself costs nothing; the command line relies on it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes a third of the time of `dormice --help` to load

if TYPE_CHECKING:
    from dormice.client import (
        APIConnectionError,
        APIError,
        APIResponseError,
        APIStatusError,
        APITimeoutError,
        AsyncDormice,
        AuthenticationError,
        AutoresizingSetting,
        BadRequestError,
        CompletedExecution,
        ComputeUsage,
        ComputeUsageRow,
        ConfigurationError,
        ConflictError,
        Dormice,
        DormiceError,
        Execution,
        ExecutionEvent,
        ExecutionOutput,
        FileEntry,
        FilePart,
        InternalServerError,
        Key,
        Limits,
        LogPublication,
        LogStatus,
        LogToken,
        Machine,
        MachineStatus,
        NewKey,
        NewWebhook,
        NotFoundError,
        OrganizationUsage,
        PermissionDeniedError,
        Preview,
        PreviewLink,
        RateLimitError,
        Snapshot,
        SSHConnection,
        SSHHostTrust,
        SSHSession,
        StdinPosition,
        StorageUsage,
        StorageUsageRow,
        StoredArtifact,
        Terminal,
        TerminalError,
        Timeout,
        UnprocessableEntityError,
        WaitTimeoutError,
        Webhook,
        WebhookDelivery,
    )

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncDormice",
    "AuthenticationError",
    "AutoresizingSetting",
    "BadRequestError",
    "CompletedExecution",
    "ComputeUsage",
    "ComputeUsageRow",
    "ConfigurationError",
    "ConflictError",
    "Dormice",
    "DormiceError",
    "Execution",
    "ExecutionEvent",
    "ExecutionOutput",
    "FileEntry",
    "FilePart",
    "InternalServerError",
    "Key",
    "Limits",
    "LogPublication",
    "LogStatus",
    "LogToken",
    "Machine",
    "MachineStatus",
    "NewKey",
    "NewWebhook",
    "NotFoundError",
    "OrganizationUsage",
    "PermissionDeniedError",
    "Preview",
    "PreviewLink",
    "RateLimitError",
    "SSHConnection",
    "SSHHostTrust",
    "SSHSession",
    "Snapshot",
    "StdinPosition",
    "StorageUsage",
    "StorageUsageRow",
    "StoredArtifact",
    "Terminal",
    "TerminalError",
    "Timeout",
    "UnprocessableEntityError",
    "WaitTimeoutError",
    "Webhook",
    "WebhookDelivery",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dormice import client  # noqa: PLC0415 - see the module's docstring

    return getattr(client, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
