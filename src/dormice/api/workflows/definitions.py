"""Routes of what deployments offer: agents, tools, workflows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct, field

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation, Parameter
from dormice.api.http.replies import json_reply, list_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows.door import Door
from dormice.domain import documents
from dormice.domain.errors import NotFound
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import check_given
from dormice.store.projects import Definition, Project


class AgentSpec(Struct, kw_only=True):
    """What an agent is made of."""

    provider: str
    model: str
    system_prompt: str | None = None
    tools: Raw = field(default_factory=documents.nothing)
    temperature: float | None = None
    max_output_tokens: int | None = None
    config: Raw = field(default_factory=documents.nothing)
    metadata: Raw = field(default_factory=documents.nothing)


class AgentRequest(AgentSpec, kw_only=True):
    """An agent of a deployment."""

    id: str
    deployment_id: str | None = None


class AgentRecord(AgentSpec, kw_only=True):
    """An agent."""

    id: str
    deployment_id: str
    created_at: str
    updated_at: str


class ToolSpec(Struct, kw_only=True):
    """What a tool is made of."""

    tool_type: str = "default"
    description: str | None = None
    parameters: Raw = field(default_factory=documents.nothing)
    metadata: Raw = field(default_factory=documents.nothing)


class ToolRequest(ToolSpec, kw_only=True):
    """A tool of a deployment."""

    id: str
    deployment_id: str | None = None


class ToolRecord(ToolSpec, kw_only=True):
    """A tool."""

    id: str
    deployment_id: str
    created_at: str
    updated_at: str


class WorkflowRecord(Struct, kw_only=True):
    """A workflow of a deployment."""

    workflow_id: str
    deployment_id: str
    workflow_type: str
    trigger_on_event: bool
    scheduled: bool
    created_at: str


class DeploymentRecord(Struct, kw_only=True):
    """A deployment."""

    id: str
    project_id: str
    status: str
    created_at: str


class Success(Struct, kw_only=True):
    """It is done."""

    success: bool


_AGENT = BodyDecoder(AgentRequest)
_TOOL = BodyDecoder(ToolRequest)
_OF_DEPLOYMENT = [Parameter("deployment_id", "query", {"type": "string"}, "Of this one; absent: of the latest.")]


class DefinitionRoutes:
    """Handlers over definitions."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._registry = services.registry
        self._limits = limits
        self._door = door

    async def register_agent(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/agents/register."""
        body = _AGENT.decode(call.header("Content-Type"), await call.body())
        return await self._register(project, "agent_spec", body, AgentSpec)

    async def register_tool(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/tools/register."""
        body = _TOOL.decode(call.header("Content-Type"), await call.body())
        return await self._register(project, "tool_spec", body, ToolSpec)

    async def _register(
        self, project: Project, kind: str, body: AgentRequest | ToolRequest, spec: type[Struct]
    ) -> ASGIApp:
        check_given(body.id, "body.id")
        deployment = self._registry.deployment(project, body.deployment_id)
        fields = {name: getattr(body, name) for name in spec.__struct_fields__}
        definition = Definition(
            project_id=project.id,
            deployment_id=deployment.id,
            kind=kind,
            id=body.id,
            spec=msgspec.json.encode(fields),
            created_at=0,
            updated_at=0,
        )
        await self._registry.define(definition)
        return json_reply(Success(success=True))

    async def agents(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/agents."""
        return list_reply([_agent(one) for one in self._registry.definitions(project, "agent_spec")])

    async def agent(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/agents/{agent_id}."""
        return json_reply(_agent(self._find(call, project, "agent_spec", call.path["agent_id"])))

    async def tools(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/tools."""
        return list_reply([_tool(one) for one in self._registry.definitions(project, "tool_spec")])

    async def tool(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/tools/{tool_id}."""
        return json_reply(_tool(self._find(call, project, "tool_spec", call.path["tool_id"])))

    async def workflows(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/workflows."""
        return list_reply([_workflow(one) for one in self._registry.definitions(project, "workflow")])

    async def workflow(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/workflows/{workflow_id}."""
        return json_reply(_workflow(self._find(call, project, "workflow", call.path["workflow_id"])))

    async def deployments(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/deployments."""
        found = self._registry.deployments(project)
        return list_reply([_deployment(project, one.id, one.created_at) for one in found])

    async def deployment(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/deployments/{deployment_id}."""
        for one in self._registry.deployments(project):
            if one.id == call.path["deployment_id"]:
                return json_reply(_deployment(project, one.id, one.created_at))
        raise NotFound("no such deployment")

    def _find(self, call: Call, project: Project, kind: str, identity: str) -> Definition:
        return self._registry.definition(project, kind, identity, call.query.get("deployment_id") or None)

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        route = self._door.route
        return [
            route(
                "definitions",
                "registerAgent",
                "POST",
                "/api/v1/agents/register",
                "Record an agent of a deployment",
                self.register_agent,
                Success,
                body=AgentRequest,
            ),
            route(
                "definitions", "listAgents", "GET", "/api/v1/agents", "List agents", self.agents, AgentRecord, many=True
            ),
            route(
                "definitions",
                "getAgent",
                "GET",
                "/api/v1/agents/{agent_id}",
                "Read an agent",
                self.agent,
                AgentRecord,
                parameters=_OF_DEPLOYMENT,
            ),
            route(
                "definitions",
                "registerTool",
                "POST",
                "/api/v1/tools/register",
                "Record a tool of a deployment",
                self.register_tool,
                Success,
                body=ToolRequest,
            ),
            route("definitions", "listTools", "GET", "/api/v1/tools", "List tools", self.tools, ToolRecord, many=True),
            route(
                "definitions",
                "getTool",
                "GET",
                "/api/v1/tools/{tool_id}",
                "Read a tool",
                self.tool,
                ToolRecord,
                parameters=_OF_DEPLOYMENT,
            ),
            route(
                "definitions",
                "listWorkflows",
                "GET",
                "/api/v1/workflows",
                "List workflows",
                self.workflows,
                WorkflowRecord,
                many=True,
            ),
            route(
                "definitions",
                "getWorkflow",
                "GET",
                "/api/v1/workflows/{workflow_id}",
                "Read a workflow",
                self.workflow,
                WorkflowRecord,
                parameters=_OF_DEPLOYMENT,
            ),
            route(
                "definitions",
                "listDeployments",
                "GET",
                "/api/v1/deployments",
                "List deployments, the latest first",
                self.deployments,
                DeploymentRecord,
                many=True,
            ),
            route(
                "definitions",
                "getDeployment",
                "GET",
                "/api/v1/deployments/{deployment_id}",
                "Read a deployment",
                self.deployment,
                DeploymentRecord,
            ),
        ]


def _agent(one: Definition) -> AgentRecord:
    spec = msgspec.json.decode(one.spec, type=AgentSpec)
    return AgentRecord(
        id=one.id,
        deployment_id=one.deployment_id,
        created_at=rfc3339(one.created_at),
        updated_at=rfc3339(one.updated_at),
        **msgspec.structs.asdict(spec),
    )


def _tool(one: Definition) -> ToolRecord:
    spec = msgspec.json.decode(one.spec, type=ToolSpec)
    return ToolRecord(
        id=one.id,
        deployment_id=one.deployment_id,
        created_at=rfc3339(one.created_at),
        updated_at=rfc3339(one.updated_at),
        **msgspec.structs.asdict(spec),
    )


def _workflow(one: Definition) -> WorkflowRecord:
    return WorkflowRecord(
        workflow_id=one.id,
        deployment_id=one.deployment_id,
        workflow_type=one.kind,
        trigger_on_event=one.trigger_on_event,
        scheduled=one.scheduled,
        created_at=rfc3339(one.created_at),
    )


def _deployment(project: Project, identity: str, created_at: int) -> DeploymentRecord:
    return DeploymentRecord(id=identity, project_id=project.id, status="active", created_at=rfc3339(created_at))
