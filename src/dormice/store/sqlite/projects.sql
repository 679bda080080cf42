-- name: ensure_project
-- A project; the one that is there stays as it is.
INSERT INTO projects (id, organization_id, name, description, is_default, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: project
-- One project.
SELECT id, organization_id, name, description, is_default, created_at, updated_at FROM projects WHERE id = ?;

-- name: default_project
-- The default project of an organization.
SELECT id, organization_id, name, description, is_default, created_at, updated_at FROM projects
WHERE organization_id = ? AND is_default;

-- name: projects
-- The projects of an organization (of all: NULL).
SELECT id, organization_id, name, description, is_default, created_at, updated_at FROM projects
WHERE organization_id = ?1 OR ?1 IS NULL;

-- name: deploy
-- A deployment, or that it came again.
INSERT INTO deployments (project_id, id, created_at, deployed_at) VALUES (?1, ?2, ?3, ?3)
ON CONFLICT DO UPDATE SET deployed_at = excluded.deployed_at
RETURNING project_id, id, created_at, deployed_at;

-- name: deployments
-- Every deployment.
SELECT project_id, id, created_at, deployed_at FROM deployments;

-- name: define
-- A definition, or how it is now.
INSERT INTO definitions (
    project_id, deployment_id, kind, id, trigger_on_event, scheduled, spec, created_at, updated_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    trigger_on_event = excluded.trigger_on_event, scheduled = excluded.scheduled, spec = excluded.spec,
    updated_at = excluded.updated_at
RETURNING project_id, deployment_id, kind, id, trigger_on_event, scheduled, spec, created_at, updated_at;

-- name: definitions
-- The definitions of a project (of all: NULL).
SELECT project_id, deployment_id, kind, id, trigger_on_event, scheduled, spec, created_at, updated_at FROM definitions
WHERE project_id = ?1 OR ?1 IS NULL;

-- name: set_queue
-- A queue and its limit.
INSERT INTO queues (project_id, deployment_id, name, concurrency_limit) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET concurrency_limit = excluded.concurrency_limit;

-- name: queues
-- Every queue.
SELECT project_id, deployment_id, name, concurrency_limit FROM queues;

-- name: add_worker
-- A worker.
INSERT INTO workers (id, project_id, deployment_id, mode, url, max_concurrent, capabilities, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: remove_worker
-- A worker that is gone.
DELETE FROM workers WHERE id = ?;

-- name: workers
-- Every worker.
SELECT id, project_id, deployment_id, mode, url, max_concurrent, capabilities, created_at FROM workers;
