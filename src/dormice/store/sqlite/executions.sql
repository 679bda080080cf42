-- name: insert
-- A new execution of a machine of an organization; no row when there is no such machine.
INSERT INTO executions (
    id, machine, state, created_at, start_by, stdout_bytes, stderr_bytes, stdout_kept, stderr_kept, last_sequence,
    boot_id, fence, stdin_offset, stdin_eof
) SELECT ?3, number, ?4, ?5, ?6, 0, 0, 0, 0, 1, ?7, ?8, ?9, ?10
FROM machines WHERE id = ?2 AND organization_id = ?1 RETURNING number;

-- name: insert_request
-- What was asked for.
INSERT INTO requests (execution, command, cwd, env_keys, stdin_mode, timeout_ms) VALUES (?, ?, ?, ?, ?, ?);

-- name: load
-- One execution, to be changed.
SELECT * FROM execution_records WHERE id = ?;

-- name: get
-- One execution of a machine of an organization.
SELECT * FROM execution_records WHERE id = ?3 AND machine_id = ?2 AND organization_id = ?1;

-- name: page
-- Executions of a machine, newest first; terminals have a list of their own.
SELECT * FROM execution_records
WHERE machine_id = ?2 AND organization_id = ?1 AND number < ?3
AND NOT EXISTS (SELECT 1 FROM terminals WHERE execution = number) ORDER BY number DESC LIMIT ?4;

-- name: open
-- Every execution that has not ended, oldest first.
SELECT * FROM execution_records WHERE completed_at IS NULL ORDER BY +number;

-- name: last_ends
-- The machines of the executions that ended last, and when, the latest first.
SELECT m.id, e.completed_at FROM executions e JOIN machines m ON m.number = e.machine
WHERE e.completed_at > 0 ORDER BY e.completed_at DESC LIMIT ?;

-- name: open_of
-- Executions of one machine that have not ended, oldest first.
SELECT * FROM execution_records WHERE machine_id = ? AND completed_at IS NULL ORDER BY number;

-- name: save
-- All that may change of an execution but its end (which is in the index of open ones).
UPDATE executions SET
    state = ?, started_at = ?, stdout_bytes = ?, stderr_bytes = ?, stdout_kept = ?, stderr_kept = ?,
    last_sequence = ?, boot_id = ?, fence = ?, cancel_requested_at = ?, stdin_offset = ?, stdin_eof = ?
WHERE number = ?;

-- name: save_end
-- The same, and the end.
UPDATE executions SET
    state = ?, started_at = ?, stdout_bytes = ?, stderr_bytes = ?, stdout_kept = ?, stderr_kept = ?,
    last_sequence = ?, boot_id = ?, fence = ?, cancel_requested_at = ?, stdin_offset = ?, stdin_eof = ?,
    completed_at = ?, exit_code = ?, signal = ?, error_code = ?, error_message = ?
WHERE number = ?;
