-- name: find
-- What a key was used for, if it still counts.
SELECT request_hash, resource_id FROM idempotency WHERE scope = ? AND key = ? AND keep_until >= ?;

-- name: remember
-- What a key was used for.
INSERT OR REPLACE INTO idempotency (scope, key, request_hash, resource_id, keep_until) VALUES (?, ?, ?, ?, ?);

-- name: prune
-- Forget some keys that no longer count.
DELETE FROM idempotency WHERE (scope, key) IN (
    SELECT scope, key FROM idempotency WHERE keep_until < ? ORDER BY keep_until LIMIT ?
);
