-- name: value
-- A fact about this store.
SELECT value FROM store WHERE name = ?;

-- name: set_value
-- Set a fact about this store.
INSERT OR REPLACE INTO store (name, value) VALUES (?, ?);
