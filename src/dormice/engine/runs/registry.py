"""Projects, and what workers have said that they offer: deployments, definitions, queues. All of it is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from msgspec.structs import replace

from dormice.domain.errors import ForeignProject, Invalid, NotFound
from dormice.domain.run import Json
from dormice.engine.clock import Clock
from dormice.engine.orders import Caller
from dormice.engine.runs.board import RunBoard
from dormice.engine.runs.checks import uuid_of
from dormice.engine.runs.offers import DEFAULT, Offer, Offers, offer_of
from dormice.store.projects import Definition, Deployment, Project, ProjectStore, Queue

KINDS = ("workflow", "agent", "tool")
DEFAULT_PROJECT = "default"


class Registry:
    """Raises NotFound, Forbidden, Invalid, StoreUnavailable."""

    def __init__(self, *, store: ProjectStore, board: RunBoard, offers: Offers, clock: Clock) -> None:
        self._store = store
        self._board = board
        self._offer_checks = offers
        self._clock = clock
        self._projects: dict[str, Project] = {}
        self._defaults: dict[str, Project] = {}
        self._deployments: dict[tuple[str, str], Deployment] = {}
        self._definitions: dict[tuple[str, str, str, str], Definition] = {}
        self._offers: dict[tuple[str, str], dict[tuple[str, str], Definition]] = {}
        """Workflows, agents and tools by project and id, then by deployment and kind."""

    async def load(self) -> None:
        """Rebuild memory from the store."""
        for project in await self._store.projects(None):
            self._know(project)
        for deployment in await self._store.deployments():
            self._deployments[deployment.project_id, deployment.id] = deployment
        for definition in await self._store.definitions(None):
            self._know_definition(definition)
        for queue in await self._store.queues():
            self._board.set_limit(queue)

    async def project(self, caller: Caller, wanted: str | None, *, make: bool = False) -> Project:
        """Return the project that a caller names, or the default one of its organization.

        `make`: one that does not exist is made, for the caller's organization.
        """
        if wanted is None:
            own = caller.project_id
            return self._projects[own] if own is not None else await self._default(caller)
        project_id = uuid_of(wanted, "header.X-Project-ID")
        project = self._projects.get(project_id)
        if project is None and make and caller.project_id is None:
            project = await self._make(caller.organization_id, project_id, f"project {project_id[:8]}")
        if project is None or project.organization_id != caller.organization_id:
            raise NotFound("no such project")
        if caller.project_id not in (None, project.id):
            raise ForeignProject("the key may use another project only")
        return project

    def projects(self, caller: Caller) -> list[Project]:
        """Return the projects that a caller may use."""
        own = (project for project in self._projects.values() if project.organization_id == caller.organization_id)
        return [project for project in own if caller.project_id in (None, project.id)]

    def known(self, project_id: str) -> Project | None:
        """Return a project, whosever it is."""
        return self._projects.get(project_id)

    def organization(self, project_id: str) -> str:
        """Return whose a project is. It must exist."""
        return self._projects[project_id].organization_id

    async def make_project(self, caller: Caller, name: str, description: str | None) -> Project:
        """Make a project."""
        if caller.project_id is not None:
            raise ForeignProject("the key may use one project only")
        return await self._make(caller.organization_id, str(uuid4()), name, description)

    async def deploy(self, project: Project, deployment_id: str) -> Deployment:
        """Record that a deployment came."""
        deployment = await self._store.deploy(project.id, deployment_id, self._clock.now())
        self._deployments[project.id, deployment_id] = deployment
        return deployment

    def deployment(self, project: Project, deployment_id: str | None) -> Deployment:
        """Return a deployment, or the latest. Raises Invalid."""
        if deployment_id is not None:
            found = self._deployments.get((project.id, deployment_id))
            if found is None:
                raise Invalid(
                    "no such deployment: a worker has to register with it first",
                    location="body.deployment_id",
                    status=400,
                )
            return found
        own = [deployment for deployment in self._deployments.values() if deployment.project_id == project.id]
        if not own:
            raise Invalid(
                "the project has no deployment: a worker has to register first",
                location="body.deployment_id",
                status=400,
            )
        return max(own, key=lambda deployment: deployment.deployed_at)

    def deployments(self, project: Project) -> list[Deployment]:
        """Return a project's deployments, the latest first."""
        own = (deployment for deployment in self._deployments.values() if deployment.project_id == project.id)
        return sorted(own, key=lambda deployment: deployment.deployed_at, reverse=True)

    async def check(self, project_id: str, spec: Json) -> None:
        """Raise Invalid for a spec of a workflow, agent or tool that cannot be gone by."""
        await self._offer_checks.check(self.organization(project_id), spec)

    async def define(self, definition: Definition, *, checked: bool = False) -> Definition:
        """Record what a deployment offers. Raises Invalid for a spec that cannot be gone by, unless that was `checked` already."""
        if definition.kind in KINDS and not checked:
            await self.check(definition.project_id, definition.spec)
        known = self._definitions.get(_key(definition))
        now = self._clock.now()
        created_at = known.created_at if known is not None else now
        made = await self._store.define(replace(definition, created_at=created_at, updated_at=now))
        self._know_definition(made)
        return made

    def newest(self, project_id: str, identity: str, *, scheduled: bool = False) -> Definition | None:
        """Return the last registration of a workflow, agent or tool; with `scheduled`, the last one as a scheduled one."""
        own = self._offers.get((project_id, identity), {}).values()
        fitting = (one for one in own if one.scheduled or not scheduled)
        return max(fitting, key=lambda one: one.updated_at, default=None)

    def offers(self, project_id: str, deployment_id: str, identity: str) -> bool:
        """Whether a deployment has a workflow, agent or tool of this id."""
        return any((deployment_id, kind) in self._offers.get((project_id, identity), {}) for kind in KINDS)

    def definitions(self, project: Project, kind: str) -> list[Definition]:
        """Return a project's definitions of one kind, the latest first."""
        own = (one for one in self._definitions.values() if one.project_id == project.id and one.kind == kind)
        return sorted(own, key=lambda one: one.created_at, reverse=True)

    def definition(self, project: Project, kind: str, identity: str, deployment_id: str | None = None) -> Definition:
        """Return one definition, of that deployment or the latest. Raises NotFound."""
        for one in self.definitions(project, kind):
            if one.id == identity and deployment_id in (None, one.deployment_id):
                return one
        raise NotFound(f"no such {kind}")

    def offer(self, project_id: str, deployment_id: str, workflow_id: str) -> Offer:
        """Return what a workflow, agent or tool says of itself; one that is not registered says nothing."""
        for kind in KINDS:
            found = self._definitions.get((project_id, deployment_id, kind, workflow_id))
            if found is not None:
                return offer_of(found)
        return DEFAULT

    async def set_queues(self, project: Project, deployment_id: str, limits: Sequence[tuple[str, int | None]]) -> None:
        """Set the limits of queues."""
        for name, limit in limits:
            queue = Queue(project_id=project.id, deployment_id=deployment_id, name=name, concurrency_limit=limit)
            await self._store.set_queue(queue)
            self._board.set_limit(queue)

    async def _default(self, caller: Caller) -> Project:
        found = self._defaults.get(caller.organization_id)
        return found or await self._make(caller.organization_id, str(uuid4()), DEFAULT_PROJECT, is_default=True)

    async def _make(
        self,
        organization_id: str,
        project_id: str,
        name: str,
        description: str | None = None,
        *,
        is_default: bool = False,
    ) -> Project:
        now = self._clock.now()
        project = await self._store.ensure_project(
            Project(
                id=project_id,
                organization_id=organization_id,
                name=name,
                description=description,
                is_default=is_default,
                created_at=now,
                updated_at=now,
            )
        )
        self._know(project)
        return project

    def _know_definition(self, definition: Definition) -> None:
        self._definitions[_key(definition)] = definition
        if definition.kind in KINDS:
            own = self._offers.setdefault((definition.project_id, definition.id), {})
            own[definition.deployment_id, definition.kind] = definition

    def _know(self, project: Project) -> None:
        self._projects[project.id] = project
        if project.is_default:
            self._defaults[project.organization_id] = project


def _key(definition: Definition) -> tuple[str, str, str, str]:
    return definition.project_id, definition.deployment_id, definition.kind, definition.id
