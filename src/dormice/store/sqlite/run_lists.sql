-- name: all
-- Runs of a project, the newest first.
SELECT * FROM runs WHERE project_id = ?1 AND number < ?2 AND ?3 IS NULL ORDER BY number DESC;

-- name: open
-- Those that have not ended. (Of all projects: there are never many.)
SELECT * FROM runs INDEXED BY runs_open
WHERE completed_at IS NULL AND number < ?2 AND project_id = ?1 AND ?3 IS NULL ORDER BY number DESC;

-- name: ended
-- Those that have ended in a state.
SELECT * FROM runs INDEXED BY runs_ended_in
WHERE project_id = ?1 AND state = ?3 AND number < ?2 AND completed_at IS NOT NULL ORDER BY number DESC;

-- name: of_workflow
-- Those of a workflow.
SELECT * FROM runs WHERE project_id = ?1 AND workflow_id = ?3 AND number < ?2 ORDER BY number DESC;

-- name: of_queue
-- Those of a queue that has not the name of their workflow.
SELECT * FROM runs INDEXED BY runs_of_queue
WHERE project_id = ?1 AND queue_name = ?3 AND number < ?2 AND queue_name <> workflow_id ORDER BY number DESC;

-- name: of_session
-- Those of a session.
SELECT * FROM runs WHERE project_id = ?1 AND session_id = ?3 AND number < ?2 ORDER BY number DESC;

-- name: of_user
-- Those of a user.
SELECT * FROM runs WHERE project_id = ?1 AND user_id = ?3 AND number < ?2 ORDER BY number DESC;

-- name: of_batch
-- Those of a batch.
SELECT * FROM runs WHERE batch_id = ?3 AND number < ?2 AND project_id = ?1 ORDER BY number DESC;

-- name: of_parent
-- Those that a run has asked for.
SELECT * FROM runs INDEXED BY runs_under WHERE parent_id = ?3 AND number < ?2 AND project_id = ?1 ORDER BY number DESC;

-- name: first_from
-- The first run made at a moment or later: ids grow with time.
SELECT number FROM runs WHERE id >= ? ORDER BY id LIMIT 1;

-- name: documents
-- What a run was given and what came of it, if they are short, and whether one is not.
SELECT iif(length(i.payload) <= ?2, i.payload, NULL), iif(length(o.result) <= ?2, o.result, NULL),
    max(length(i.payload), coalesce(length(o.result), 0)) > ?2
FROM run_inputs i LEFT JOIN run_results o ON o.run = i.run WHERE i.run = ?1;

-- name: roots_of_session
-- How many runs of a session no run has asked for.
SELECT count(*) FROM runs WHERE project_id = ? AND session_id = ? AND parent_id IS NULL;
