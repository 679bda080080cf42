"""Routes of projects, and of the keys that may use one project only.

There are no users here: who has a key of the organization may do everything with its projects, who has a project's key may use that project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation
from dormice.api.http.replies import json_reply, list_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows.door import Door, bad, operation
from dormice.domain.errors import Forbidden, NotFound
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.engine.orders import Caller
from dormice.store.interface import Key, KeyRefusal
from dormice.store.projects import Project

_DESCRIPTION_CHARS = 4_096


class ProjectRequest(Struct, kw_only=True):
    """A project to be made."""

    name: str
    description: str | None = None


class ProjectRecord(Struct, kw_only=True):
    """A project."""

    id: str
    name: str
    description: str | None
    created_at: str
    updated_at: str


class ProjectList(Struct, kw_only=True):
    """The projects that the caller may use."""

    projects: list[ProjectRecord]


class MemberRecord(Struct, kw_only=True):
    """A key that may use a project."""

    id: str
    user_id: Annotated[str, Meta(description="The same: there are no users.")]
    user: None
    name: str
    role: Annotated[str, Meta(description="`Admin`: a key of the organization. `Write`: a key of this project.")]
    created_at: str
    updated_at: str


class ProjectKeyRequest(Struct, kw_only=True):
    """A key to be made."""

    name: str
    project_id: str


class ProjectKeyRecord(Struct, kw_only=True):
    """A key of a project."""

    id: str
    name: str
    last_four_digits: str
    created_at: str
    last_used_at: Annotated[str | None, Meta(description="To a minute; null before its first use.")] = None


class NewProjectKeyRecord(ProjectKeyRecord, kw_only=True):
    """A key of a project, with its secret, which is in the answer that made it only."""

    key: str


class Done(Struct, kw_only=True):
    """It is done."""

    message: str


_PROJECT = BodyDecoder(ProjectRequest)
_KEY = BodyDecoder(ProjectKeyRequest)


class ProjectRoutes:
    """Handlers over projects and their keys."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._registry = services.registry
        self._keys = services.keys
        self._make = services.local is not None
        self._limits = limits
        self._door = door

    async def create(self, call: Call, caller: Caller) -> ASGIApp:
        """POST /api/v1/projects."""
        body = _PROJECT.decode(call.header("Content-Type"), await call.body())
        self._check_name(body.name)
        if body.description is not None and len(body.description) > _DESCRIPTION_CHARS:
            raise bad(f"description must have at most {_DESCRIPTION_CHARS} characters", "body.description")
        return json_reply(_project(await self._registry.make_project(caller, body.name, body.description)))

    async def page(self, _call: Call, caller: Caller) -> ASGIApp:
        """GET /api/v1/projects."""
        return json_reply(ProjectList(projects=[_project(one) for one in self._registry.projects(caller)]))

    async def get(self, call: Call, caller: Caller) -> ASGIApp:
        """GET /api/v1/projects/{project_id}."""
        return json_reply(_project(await self._registry.project(caller, call.path["project_id"])))

    async def members(self, call: Call, caller: Caller) -> ASGIApp:
        """GET /api/v1/projects/{project_id}/members."""
        project = await self._registry.project(caller, call.path["project_id"])
        keys = await self._keys.of_organization(project.organization_id)
        return list_reply(
            [_member(key) for key in keys if key.revoked_at is None and key.project_id in (None, project.id)]
        )

    async def create_key(self, call: Call, caller: Caller) -> ASGIApp:
        """POST /api/v1/api-keys."""
        body = _KEY.decode(call.header("Content-Type"), await call.body())
        self._check_name(body.name)
        project = await self._registry.project(caller, body.project_id, make=self._make)
        _needs_whole(caller)
        made, secret = await self._keys.create_for_project(project.organization_id, project.id, body.name)
        if made is KeyRefusal.NAME_TAKEN:
            raise bad("the project has a key of this name: choose another name", "body.name", "DUPLICATE_KEY")
        if made is KeyRefusal.TOO_MANY:
            raise bad(
                f"the project has {self._limits.keys_per_project} keys (keys_per_project): delete one first",
                "body.project_id",
                "LIMIT_EXCEEDED",
            )
        assert isinstance(made, Key)  # noqa: S101 - the two refusals are answered above
        record = NewProjectKeyRecord(
            id=made.id,
            name=made.name,
            key=secret,
            last_four_digits=made.last_four,
            created_at=rfc3339(made.created_at),
        )
        return json_reply(record, headers={"cache-control": "no-store"})

    async def keys(self, call: Call, caller: Caller) -> ASGIApp:
        """GET /api/v1/api-keys/project/{project_id}."""
        project = await self._registry.project(caller, call.path["project_id"])
        return list_reply([_key(one) for one in await self._keys.of_project(project.id)])

    async def delete_key(self, call: Call, caller: Caller) -> ASGIApp:
        """DELETE /api/v1/api-keys/{key_id}."""
        project = self._registry.known(await self._keys.project_of(call.path["key_id"]))
        if project is None or project.organization_id != caller.organization_id:
            raise NotFound("no such key")
        _needs_whole(caller)
        await self._keys.revoke_of_project(call.path["key_id"])
        return json_reply(Done(message="The key is deleted."))

    def _check_name(self, name: str) -> None:
        if not 0 < len(name) <= self._limits.name_chars or not name.isprintable():
            raise bad(
                f"name must have from 1 to {self._limits.name_chars} printable characters (name_chars)",
                "body.name",
                "INVALID_INPUT",
            )

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        of = self._door.organization
        one = "/api/v1/projects/{project_id}"
        return [
            operation(
                "projects",
                "createProject",
                "POST",
                "/api/v1/projects",
                "Make a project",
                of(self.create),
                ProjectRecord,
                body=ProjectRequest,
            ),
            operation(
                "projects", "listProjects", "GET", "/api/v1/projects", "List projects", of(self.page), ProjectList
            ),
            operation("projects", "getProject", "GET", one, "Read a project", of(self.get), ProjectRecord),
            operation(
                "projects",
                "listMembers",
                "GET",
                f"{one}/members",
                "List the keys that may use a project",
                of(self.members),
                MemberRecord,
                many=True,
            ),
            operation(
                "projects",
                "createProjectKey",
                "POST",
                "/api/v1/api-keys",
                "Make a key that may use one project only",
                of(self.create_key),
                NewProjectKeyRecord,
                body=ProjectKeyRequest,
                description="For keys of the organization. The secret, `key`, is in this answer only.",
            ),
            operation(
                "projects",
                "listProjectKeys",
                "GET",
                "/api/v1/api-keys/project/{project_id}",
                "List a project's keys",
                of(self.keys),
                ProjectKeyRecord,
                many=True,
            ),
            operation(
                "projects",
                "deleteProjectKey",
                "DELETE",
                "/api/v1/api-keys/{key_id}",
                "Delete a project's key",
                of(self.delete_key),
                Done,
                description="For keys of the organization. It is good for nothing from now on.",
            ),
        ]


def _needs_whole(caller: Caller) -> None:
    if caller.project_id is not None:
        raise Forbidden("this needs a key of the organization, not one of a project")


def _project(one: Project) -> ProjectRecord:
    return ProjectRecord(
        id=one.id,
        name=one.name,
        description=one.description,
        created_at=rfc3339(one.created_at),
        updated_at=rfc3339(one.updated_at),
    )


def _member(key: Key) -> MemberRecord:
    return MemberRecord(
        id=key.id,
        user_id=key.id,
        user=None,
        name=key.name,
        role="Admin" if key.project_id is None else "Write",
        created_at=rfc3339(key.created_at),
        updated_at=rfc3339(key.created_at),
    )


def _key(key: Key) -> ProjectKeyRecord:
    return ProjectKeyRecord(
        id=key.id,
        name=key.name,
        last_four_digits=key.last_four,
        created_at=rfc3339(key.created_at),
        last_used_at=None if key.used_at is None else rfc3339(key.used_at),
    )
