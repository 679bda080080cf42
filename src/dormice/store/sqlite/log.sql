-- name: append
-- The next entry of an execution's log.
INSERT INTO log (
    execution, sequence, at, state, stream, "offset", data, exit_code, signal, error_code, error_message
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: after
-- Entries above a sequence.
SELECT sequence, at, state, stream, "offset", data, exit_code, signal, error_code, error_message
FROM log WHERE execution = ? AND sequence > ? ORDER BY sequence LIMIT ?;

-- name: output
-- Pieces of a stream, from the one that holds the first offset up to the second.
SELECT "offset", data FROM log
WHERE execution = ?1 AND stream = ?2 AND "offset" < ?4 AND "offset" >= coalesce((
    SELECT "offset" FROM log WHERE execution = ?1 AND stream = ?2 AND "offset" <= ?3 AND stream IS NOT NULL
    ORDER BY "offset" DESC LIMIT 1
), 0) AND stream IS NOT NULL ORDER BY "offset";

-- name: trim
-- Pieces of standard output that begin before an offset.
DELETE FROM log WHERE execution = ?1 AND stream = 1 AND "offset" < ?2 AND stream IS NOT NULL;
