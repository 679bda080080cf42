-- name: insert
-- A new run.
INSERT INTO runs (
    id, project_id, workflow_id, state, revision, created_at, deployment_id, queue_name, concurrency_key, priority,
    not_before, fence, parent_id, root_id, root_workflow_id, step_key, batch_id, session_id, user_id, retry_count,
    max_retries, crashes, run_timeout_seconds
) VALUES (?, ?, ?, 'queued', 1, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, 0, ?, 0, ?) RETURNING number;

-- name: insert_input
-- What it was given.
INSERT INTO run_inputs (run, payload, initial_state, channel_context, traceparent) VALUES (?, ?, ?, ?, ?);

-- name: insert_queue
-- A queue that is used for the first time.
INSERT INTO queues (project_id, deployment_id, name, concurrency_limit) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: load
-- One run, to be changed.
SELECT * FROM runs WHERE id = ?;

-- name: get
-- One run of a project.
SELECT * FROM runs WHERE id = ?2 AND project_id = ?1;

-- name: open
-- Every run that has not ended, oldest first.
SELECT * FROM runs WHERE completed_at IS NULL ORDER BY number;

-- name: below
-- Runs that a step of a run has made and that were not cancelled, oldest first.
SELECT * FROM runs WHERE parent_id = ? AND step_key = ? AND state <> 'cancelled' ORDER BY number;

-- name: made_by
-- Runs that a step of a run has made, oldest first.
SELECT * FROM runs WHERE parent_id = ? AND step_key = ? ORDER BY number;

-- name: open_of_root
-- Runs below a root run that have not ended, also below ended ones, in the order in which they were made.
SELECT * FROM runs WHERE root_id = ? AND completed_at IS NULL ORDER BY number;

-- name: open_below
-- The same below any run.
WITH RECURSIVE below (number, id, open) AS (
    SELECT number, id, completed_at IS NULL FROM runs WHERE parent_id = ?
    UNION ALL
    SELECT r.number, r.id, r.completed_at IS NULL FROM below b CROSS JOIN runs r ON r.parent_id = b.id
    ORDER BY number
)
SELECT r.* FROM below b CROSS JOIN runs r ON r.number = b.number WHERE b.open;

-- name: of_batch
-- The runs of a batch with what came of them, in their order.
SELECT r.id, r.workflow_id, r.state, r.error, o.result, o.output_schema_name
FROM runs r LEFT JOIN run_results o ON o.run = r.number WHERE r.batch_id = ? ORDER BY r.number;

-- name: save
-- All that may change of a run but its end (which is in the index of open ones).
UPDATE runs SET
    state = ?, revision = ?, not_before = ?, started_at = ?, running_since = ?, worker_id = ?, fence = ?,
    retry_count = ?, crashes = ?, error = ?, cancelled_at = ?, cancelled_by = ?
WHERE number = ?;

-- name: save_end
-- The same, and the end.
UPDATE runs SET
    state = ?, revision = ?, not_before = ?, started_at = ?, running_since = ?, worker_id = ?, fence = ?,
    retry_count = ?, crashes = ?, error = ?, cancelled_at = ?, cancelled_by = ?, completed_at = ?
WHERE number = ?;

-- name: input
-- What a run was given.
SELECT i.payload, i.initial_state, i.channel_context, i.traceparent, s.span_id
FROM run_inputs i LEFT JOIN run_spans s ON s.run = i.run WHERE i.run = ?;

-- name: result
-- What came of a run.
SELECT result, output_schema_name, final_state FROM run_results WHERE run = ?;

-- name: record
-- What a run was given, and what came of it.
SELECT i.payload, i.initial_state, i.channel_context, i.traceparent, s.span_id, r.result, r.output_schema_name, r.final_state
FROM run_inputs i LEFT JOIN run_spans s ON s.run = i.run LEFT JOIN run_results r ON r.run = i.run WHERE i.run = ?;

-- name: put_result
-- What came of a run.
INSERT OR REPLACE INTO run_results (run, result, output_schema_name, final_state) VALUES (?, ?, ?, ?);

-- name: set_span
-- The trace span of its last attempt.
INSERT OR REPLACE INTO run_spans (run, span_id) VALUES (?, ?);

-- name: put_step
-- A step. One that went well stays as it is: an earlier attempt may still be at it somewhere.
INSERT INTO steps (
    run, step_key, outputs, error, success, source_run_id, output_schema_name, completed_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    outputs = excluded.outputs, error = excluded.error, success = excluded.success,
    source_run_id = excluded.source_run_id, output_schema_name = excluded.output_schema_name,
    completed_at = excluded.completed_at
WHERE NOT steps.success;

-- name: step
-- One step.
SELECT step_key, outputs, error, success, source_run_id, output_schema_name, completed_at
FROM steps WHERE run = ? AND step_key = ?;

-- name: steps
-- All steps of a run.
SELECT step_key, outputs, error, success, source_run_id, output_schema_name, completed_at
FROM steps WHERE run = ? ORDER BY step_key;

-- name: drop_step
-- A step that is to be run anew.
DELETE FROM steps WHERE run = ? AND step_key = ?;

-- name: copy_steps
-- The steps of a run that were done before one of them, for another run. It tells its start itself: the step that says so has no outcome,
-- by which it differs from a user's own step of this name.
INSERT INTO steps (run, step_key, outputs, error, success, source_run_id, output_schema_name, completed_at)
SELECT ?2, step_key, outputs, error, success, source_run_id, output_schema_name, completed_at
FROM steps WHERE run = ?1 AND NOT (step_key = 'publish_start' AND outputs = CAST('null' AS BLOB) AND error IS NULL)
AND completed_at < (SELECT completed_at FROM steps WHERE run = ?1 AND step_key = ?3);
