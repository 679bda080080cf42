-- name: insert
-- One sealed record.
INSERT INTO secrets (execution, kind, "offset", "end", sealed) VALUES (?, ?, ?, ?, ?);

-- name: env
-- The sealed environment.
SELECT sealed FROM secrets WHERE execution = ? AND kind = 'env';

-- name: stdin
-- Sealed segments of standard input that reach beyond an offset.
SELECT "offset", "end", sealed FROM secrets
WHERE execution = ? AND kind = 'stdin' AND "end" > ? ORDER BY "offset";

-- name: stdin_begin
-- Where the kept segments of standard input begin.
SELECT min("offset") FROM secrets WHERE execution = ? AND kind = 'stdin';

-- name: trim_stdin
-- Segments wholly below an offset.
DELETE FROM secrets WHERE execution = (SELECT number FROM executions WHERE id = ?) AND kind = 'stdin' AND "end" <= ?;

-- name: delete
-- Every record of one kind of an execution.
DELETE FROM secrets WHERE execution = ? AND kind = ?;
