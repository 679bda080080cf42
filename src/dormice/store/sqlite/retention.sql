-- name: ended
-- Executions that ended before a moment, the longest ago first.
SELECT number FROM executions WHERE completed_at < ? ORDER BY completed_at LIMIT ?;

-- name: hide
-- Without its request an execution is nobody's: every read joins the two.
DELETE FROM requests WHERE execution = ?;

-- name: delete_secrets
-- Whatever is left of its secrets.
DELETE FROM secrets WHERE execution = ?;

-- name: entries
-- The sizes of the oldest entries of its log.
SELECT sequence, coalesce(length(data), 0) FROM log WHERE execution = ? ORDER BY sequence LIMIT ?;

-- name: delete_entries
-- Entries up to a sequence.
DELETE FROM log WHERE execution = ? AND sequence <= ?;

-- name: delete_collection
-- What was collected of it; artifacts have a time of their own.
DELETE FROM artifact_collections WHERE execution_id = (SELECT id FROM executions WHERE number = ?);

-- name: delete_execution
-- The row that all others refer to.
DELETE FROM executions WHERE number = ?;

-- name: delete_previews
-- Previews that ended before a moment, the longest ago first.
DELETE FROM previews WHERE number IN (
    SELECT number FROM previews WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2
);

-- name: delete_ssh_sessions
-- SSH sessions that were over before a moment, the longest ago first.
DELETE FROM ssh_sessions WHERE number IN (
    SELECT number FROM ssh_sessions WHERE expires_at < ? ORDER BY expires_at LIMIT ?
);

-- name: delete_machines
-- Machines destroyed before a moment that have neither executions nor SSH sessions, the longest ago first.
DELETE FROM machines WHERE number IN (
    SELECT number FROM machines
    WHERE phase = 'destroyed' AND last_transition_at < ?1
    AND NOT EXISTS (SELECT 1 FROM executions WHERE machine = machines.number)
    AND NOT EXISTS (SELECT 1 FROM ssh_sessions WHERE machine = machines.number)
    ORDER BY last_transition_at LIMIT ?2
);
