"""Routes of artifacts."""

from __future__ import annotations

from urllib.parse import quote

from msgspec import Struct

from dormice.api.http.admission import Admission
from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.operation import Answer, Operation, Parameter
from dormice.api.http.pagination import list_page
from dormice.api.http.ranges import ranged
from dormice.api.http.replies import Stream, json_reply
from dormice.api.machines.parameters import paging
from dormice.api.machines.wire import Time, artifact_name, time
from dormice.api.services import Services
from dormice.domain.artifact import Artifact
from dormice.domain.errors import NotFound
from dormice.engine.orders import Caller

_PATH = "/v1/machines/{machine_id}/artifacts"
_ONE = f"{_PATH}/{{artifact_id}}"
_PURPOSE = "artifact"
_OCTETS = ("application/octet-stream",)
_RANGE = Parameter("Range", "header", {"type": "string"}, "`bytes=a-b`: only these bytes (206, or 416).")


class ArtifactRecord(Struct, omit_defaults=True, kw_only=True):
    """A file that an execution left behind."""

    artifact_id: str
    machine_id: str
    name: str
    """Its path in the machine, as the pattern had it: absolute, or from the working directory on."""
    size_bytes: int
    created_at: Time
    execution_id: str
    mime_type: str
    """By its name."""
    sha256: str
    download_url: str
    """Good for `artifact_url_seconds`, without a key, as long as the key that it was asked for with is not revoked."""
    expires_at: Time | None = None
    """When it is deleted."""


class ArtifactPage(Struct, omit_defaults=True, kw_only=True):
    """Artifacts of a machine, newest first."""

    items: list[ArtifactRecord]
    next_cursor: str | None = None


class ArtifactRoutes:
    """Handlers over the artifacts service."""

    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission
        self._artifacts = services.artifacts

    async def page(self, call: Call) -> ASGIApp:
        """GET …/artifacts."""
        machine_id = call.path["machine_id"]
        await self._services.machines.get(call.caller, machine_id)

        async def read(before: int | None, limit: int) -> list[Artifact]:
            return await self._artifacts.page(call.caller, machine_id, before=before, limit=limit)

        records, cursor = await list_page(
            call, self._services.limits.page_default, read, lambda artifact: self._record(call, artifact)
        )
        return json_reply(ArtifactPage(items=records, next_cursor=cursor))

    async def get(self, call: Call) -> ASGIApp:
        """GET …/artifacts/{artifact_id}."""
        found = await self._artifacts.get(call.caller, call.path["machine_id"], call.path["artifact_id"])
        return json_reply(self._record(call, found))

    async def delete(self, call: Call) -> ASGIApp:
        """DELETE …/artifacts/{artifact_id}."""
        gone = await self._artifacts.delete(call.caller, call.path["machine_id"], call.path["artifact_id"])
        return json_reply(self._record(call, gone))

    async def content(self, call: Call) -> ASGIApp:
        """GET …/artifacts/{artifact_id}/content."""
        found = await self._artifacts.get(call.caller, call.path["machine_id"], call.path["artifact_id"])
        return self._stream(call, found)

    async def download(self, call: Call) -> ASGIApp:
        """GET /v1/artifacts/{artifact_id}/content."""
        token = call.query.get("token")
        if not token:
            raise InvalidRequest([Fault("token is required: it stands in download_url", "query.token")])
        artifact_id = call.path["artifact_id"]
        made = await self._services.key_tokens.valid(_PURPOSE, artifact_id, token)
        if made is None:
            raise NotFound(
                "the download URL is none of ours, or no longer good: ask for the artifact again for a new one"
            )
        found = await self._artifacts.find(artifact_id)
        await self._admission.let_in(call.scope, Caller(found.organization_id, made.key_id, admin=False))
        return self._stream(call, found)

    def _stream(self, call: Call, artifact: Artifact) -> ASGIApp:
        tag = f'"{artifact.sha256}"'
        part = ranged(call.header("Range"), call.header("If-Range"), artifact.size, tag)
        name = quote(artifact.name.rpartition(b"/")[2])
        headers = {
            **part.headers,
            "content-disposition": f"attachment; filename*=UTF-8''{name}",
            "content-security-policy": "sandbox",
        }
        return Stream(
            self._artifacts.read(artifact, part.start, part.end),
            status=part.status,
            media_type=_OCTETS[0].encode(),
            headers=headers,
        )

    def _record(self, call: Call, artifact: Artifact) -> ArtifactRecord:
        seconds = self._services.limits.artifact_url_seconds
        token = self._services.key_tokens.make(_PURPOSE, artifact.id, call.caller.key_id, seconds=seconds)
        return ArtifactRecord(
            artifact_id=artifact.id,
            machine_id=artifact.machine_id,
            name=artifact_name(artifact),
            size_bytes=artifact.size,
            created_at=time(artifact.created_at),
            execution_id=artifact.execution_id,
            mime_type=artifact.mime_type,
            sha256=artifact.sha256,
            download_url=f"{call.origin()}/v1/artifacts/{artifact.id}/content?token={token}",
            expires_at=None if artifact.expires_at is None else time(artifact.expires_at),
        )

    def operations(self) -> tuple[Operation, ...]:
        """Return every route."""
        limits = self._services.limits
        record = {200: Answer("The artifact.", ArtifactRecord)}
        content = {
            200: Answer("The bytes.", media_types=_OCTETS),
            206: Answer("The range.", media_types=_OCTETS),
        }
        return (
            Operation(
                id="listMachineArtifacts",
                method="GET",
                path=_PATH,
                tag="artifacts",
                summary="List a machine's artifacts, newest first",
                description="They outlive their execution and their machine, until `expires_at`.",
                handle=self.page,
                parameters=paging(limits.page_default, limits),
                answers={200: Answer("A page of artifacts.", ArtifactPage)},
            ),
            Operation(
                id="getMachineArtifact",
                method="GET",
                path=_ONE,
                tag="artifacts",
                summary="Look at an artifact",
                handle=self.get,
                answers=record,
            ),
            Operation(
                id="deleteMachineArtifact",
                method="DELETE",
                path=_ONE,
                tag="artifacts",
                summary="Delete an artifact",
                description="The answer is what it was.",
                handle=self.delete,
                answers=record,
            ),
            Operation(
                id="readMachineArtifact",
                method="GET",
                path=f"{_ONE}/content",
                tag="artifacts",
                summary="Read an artifact",
                handle=self.content,
                parameters=(_RANGE,),
                answers=content,
            ),
            Operation(
                id="downloadArtifact",
                method="GET",
                path="/v1/artifacts/{artifact_id}/content",
                tag="artifacts",
                summary="Read an artifact by its download URL",
                description=f"Needs no key but the token, which is good for {limits.artifact_url_seconds} s.",
                handle=self.download,
                parameters=(
                    Parameter(
                        "token",
                        "query",
                        {"type": "string", "minLength": 1},
                        "As it stands in `download_url`.",
                        required=True,
                    ),
                    _RANGE,
                ),
                answers=content,
                public=True,
            ),
        )
