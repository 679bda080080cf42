-- name: insert_collection
-- What is to be collected of a new execution.
INSERT INTO artifact_collections (execution_id, organization_id, machine_id, cwd, patterns, state, message)
VALUES (?, ?, ?, ?, ?, 'pending', '');

-- name: known
-- Which executions have a collection.
SELECT execution_id FROM artifact_collections;

-- name: due
-- Pending ones whose execution has ended, or is no more, besides those of some executions, machines and organizations.
SELECT c.execution_id, c.organization_id, c.machine_id, c.cwd, c.patterns, c.state, c.message, e.started_at IS NOT NULL
FROM artifact_collections c LEFT JOIN executions e ON e.id = c.execution_id
WHERE c.state = 'pending' AND (e.number IS NULL OR e.completed_at IS NOT NULL)
    AND c.execution_id NOT IN (SELECT value FROM json_each(?2))
    AND c.machine_id NOT IN (SELECT value FROM json_each(?3))
    AND c.organization_id NOT IN (SELECT value FROM json_each(?4))
ORDER BY c.number LIMIT ?1;

-- name: kept_bytes
-- How large all artifacts of an organization are.
SELECT coalesce(sum(size), 0) FROM artifacts WHERE organization_id = ?;

-- name: end
-- A collection ends, if it is in the state that it must be in.
UPDATE artifact_collections SET state = ?3, message = ?4 WHERE execution_id = ?1 AND state = ?2 RETURNING number;

-- name: insert
-- A new artifact.
INSERT INTO artifacts (
    id, execution_id, organization_id, machine_id, name, size, sha256, mime_type, created_at, expires_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: collection
-- The collection of an execution.
SELECT execution_id, organization_id, machine_id, cwd, patterns, state, message, 1
FROM artifact_collections WHERE execution_id = ?;

-- name: of_execution
-- What an execution has left behind.
SELECT number, id, execution_id, organization_id, machine_id, name, size, sha256, mime_type, created_at, expires_at
FROM artifacts WHERE execution_id = ? ORDER BY number;

-- name: get
-- One artifact of a machine of an organization.
SELECT number, id, execution_id, organization_id, machine_id, name, size, sha256, mime_type, created_at, expires_at
FROM artifacts WHERE id = ?3 AND machine_id = ?2 AND organization_id = ?1;

-- name: find
-- One artifact.
SELECT number, id, execution_id, organization_id, machine_id, name, size, sha256, mime_type, created_at, expires_at
FROM artifacts WHERE id = ?;

-- name: page
-- Artifacts of a machine, newest first.
SELECT number, id, execution_id, organization_id, machine_id, name, size, sha256, mime_type, created_at, expires_at
FROM artifacts WHERE machine_id = ?2 AND organization_id = ?1 AND number < ?3 ORDER BY number DESC LIMIT ?4;

-- name: delete
-- An artifact goes.
DELETE FROM artifacts WHERE id = ?;

-- name: expired
-- Those whose time is over.
SELECT id FROM artifacts WHERE expires_at < ? ORDER BY expires_at LIMIT ?;

-- name: ids
-- All of them.
SELECT id FROM artifacts;
