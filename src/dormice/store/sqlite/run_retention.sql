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

-- name: delete_events
-- Events published before a moment.
DELETE FROM events WHERE sequence IN (SELECT sequence FROM events WHERE created_at < ? ORDER BY created_at LIMIT ?);
