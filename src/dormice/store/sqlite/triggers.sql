-- name: put
-- A trigger, or how it is now. A new one begins after the last event of its topic.
INSERT INTO event_triggers (
    id, project_id, workflow_id, topic, deployment_id, queue_name, batch_size, batch_timeout_seconds, revision, cursor, created_at, updated_at
) VALUES (
    ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1,
    (SELECT coalesce(max(sequence), 0) FROM events WHERE project_id = ?2 AND topic = ?4), ?9, ?9
) ON CONFLICT (project_id, workflow_id, topic) DO UPDATE SET
    deployment_id = ?5, queue_name = ?6, batch_size = ?7, batch_timeout_seconds = ?8, revision = revision + 1, updated_at = ?9
RETURNING *;

-- name: all
-- Every trigger, in the order in which they were made.
SELECT * FROM event_triggers ORDER BY id;

-- name: load
-- One trigger, to be changed.
SELECT * FROM event_triggers WHERE id = ?;

-- name: go_on
-- The runs of its events are made, up to a sequence.
UPDATE event_triggers SET revision = revision + 1, cursor = ?2 WHERE id = ?1 RETURNING *;

-- name: delete
-- A trigger.
DELETE FROM event_triggers WHERE id = ?2 AND project_id = ?1 RETURNING id;
