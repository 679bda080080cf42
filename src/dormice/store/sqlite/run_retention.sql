-- name: ended
-- Runs that ended before a moment, the longest ago first. One whose parent has not ended stays: its parent may ask for it again.
SELECT number FROM runs r WHERE completed_at < ?1 AND NOT EXISTS (
    SELECT 1 FROM runs p WHERE p.id = r.parent_id AND p.completed_at IS NULL
) ORDER BY completed_at LIMIT ?2;

-- name: delete_steps
-- Some steps of a run.
DELETE FROM steps WHERE run = ?1 AND step_key IN (SELECT step_key FROM steps WHERE run = ?1 LIMIT ?2);

-- name: delete_input
-- What it was given.
DELETE FROM run_inputs WHERE run = ?;

-- name: delete_result
-- What came of it.
DELETE FROM run_results WHERE run = ?;

-- name: delete_span
-- Its trace span.
DELETE FROM run_spans WHERE run = ?;

-- name: delete_commands
-- Which commands were its steps; the commands themselves end by their own retention.
DELETE FROM run_commands WHERE run = ?;

-- name: delete_run
-- The row that all others refer to.
DELETE FROM runs WHERE number = ?;

-- name: old_traces
-- Traces of which nothing was reported since a moment, the longest ago first.
SELECT number FROM traces WHERE reported_at < ?1 ORDER BY reported_at LIMIT ?2;

-- name: delete_spans
-- Some spans of a trace.
DELETE FROM spans WHERE trace = ?1 AND span_id IN (SELECT span_id FROM spans WHERE trace = ?1 LIMIT ?2);

-- name: delete_trace
-- The row that they refer to.
DELETE FROM traces WHERE number = ?;

-- name: delete_memories
-- What is remembered of sessions, and has not changed since a moment.
DELETE FROM session_memories WHERE rowid IN (
    SELECT rowid FROM session_memories WHERE updated_at < ? ORDER BY updated_at LIMIT ?
);

-- name: delete_messages
-- What was said before a moment.
DELETE FROM messages WHERE number IN (SELECT number FROM messages WHERE created_at < ? ORDER BY created_at LIMIT ?);

-- name: delete_events
-- Events published before a moment.
DELETE FROM events WHERE sequence IN (SELECT sequence FROM events WHERE created_at < ? ORDER BY created_at LIMIT ?);
