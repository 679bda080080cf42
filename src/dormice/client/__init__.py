"""The Python client of a Dormice server: `Dormice`, `AsyncDormice`, their records and errors.

`_async` is written by hand, `_sync` is generated from it (`scripts/generate_sync_client.py`). Both rest on modules that
know no network: `routes`, `retries`, `sse`, `errors`, `records`. All network code stands behind `transport`.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in typing, which takes a third of the time of `dormice --help` to load

if TYPE_CHECKING:
    from dormice.client._async.client import AsyncDormice
    from dormice.client._sync.client import Dormice
    from dormice.client.errors import (
        APIConnectionError,
        APIError,
        APIResponseError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ConfigurationError,
        ConflictError,
        DormiceError,
        InternalServerError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        TerminalError,
        UnprocessableEntityError,
        WaitTimeoutError,
    )
    from dormice.client.records import (
        AutoresizingSetting,
        CompletedExecution,
        Execution,
        ExecutionEvent,
        ExecutionOutput,
        FileEntry,
        FilePart,
        Key,
        Limits,
        LogPublication,
        LogStatus,
        LogToken,
        Machine,
        MachineStatus,
        NewKey,
        NewWebhook,
        Preview,
        PreviewLink,
        Snapshot,
        SSHConnection,
        SSHHostTrust,
        SSHSession,
        StdinPosition,
        StoredArtifact,
        Terminal,
        Webhook,
        WebhookDelivery,
    )
    from dormice.client.transport import Timeout
    from dormice.client.usage_records import (
        ComputeUsage,
        ComputeUsageRow,
        OrganizationUsage,
        StorageUsage,
        StorageUsageRow,
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

_HOMES = {
    "AsyncDormice": "_async.client",
    "AutoresizingSetting": "records",
    "CompletedExecution": "records",
    "ComputeUsage": "usage_records",
    "ComputeUsageRow": "usage_records",
    "Dormice": "_sync.client",
    "Execution": "records",
    "ExecutionEvent": "records",
    "ExecutionOutput": "records",
    "FileEntry": "records",
    "FilePart": "records",
    "Key": "records",
    "Limits": "records",
    "LogPublication": "records",
    "LogStatus": "records",
    "LogToken": "records",
    "Machine": "records",
    "MachineStatus": "records",
    "NewKey": "records",
    "Snapshot": "records",
    "OrganizationUsage": "usage_records",
    "NewWebhook": "records",
    "Preview": "records",
    "PreviewLink": "records",
    "SSHConnection": "records",
    "SSHHostTrust": "records",
    "SSHSession": "records",
    "StdinPosition": "records",
    "StorageUsage": "usage_records",
    "StorageUsageRow": "usage_records",
    "StoredArtifact": "records",
    "Terminal": "records",
    "Timeout": "transport",
    "Webhook": "records",
    "WebhookDelivery": "records",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
