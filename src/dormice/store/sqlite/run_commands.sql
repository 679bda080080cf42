-- name: insert
-- A command of a step.
INSERT INTO run_commands (run, step_key, execution_id, open) VALUES (?, ?, ?, 1);

-- name: find
-- The command of a step.
SELECT execution_id FROM run_commands WHERE run = ? AND step_key = ?;

-- name: of_execution
-- Whose step a command is.
SELECT r.id, c.step_key FROM run_commands c JOIN runs r ON r.number = c.run WHERE c.execution_id = ?;

-- name: close
-- A command has ended.
UPDATE run_commands SET open = 0 WHERE execution_id = ?;

-- name: has_open
-- Whether a run has a command that has not ended.
SELECT 1 FROM run_commands WHERE run = ? AND open LIMIT 1;

-- name: of_run
-- The commands of a run.
SELECT step_key, execution_id FROM run_commands WHERE run = ? ORDER BY step_key;

-- name: open
-- Every command of a run that has not ended.
SELECT r.id, c.step_key, c.execution_id FROM run_commands c CROSS JOIN runs r ON r.number = c.run WHERE c.open;
