-- name: open
-- How many open previews a machine has.
SELECT count(*) FROM previews WHERE machine_id = ? AND ended_at IS NULL;

-- name: in_state
-- How many open previews of all machines are in a state and not over.
SELECT count(*) FROM previews WHERE ended_at IS NULL AND expires_at > ?1 AND state = ?2;

-- name: insert
-- A new preview; its number is the next one.
INSERT INTO previews (
    id, organization_id, machine_id, created_by, port, protocol, visibility, state, created_at, expires_at, ready_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number;

-- name: find
-- One preview, whoever's it is.
SELECT * FROM previews WHERE id = ?;

-- name: get
-- One preview of a machine of an organization.
SELECT * FROM previews WHERE id = ?3 AND machine_id = ?2 AND organization_id = ?1;

-- name: page
-- Previews of a machine, newest first.
SELECT * FROM previews WHERE organization_id = ? AND machine_id = ? AND number < ? ORDER BY number DESC LIMIT ?;

-- name: waking
-- Those whose machine is being woken.
SELECT * FROM previews WHERE state = 'wake_in_progress';

-- name: due
-- Open ones whose time is over.
SELECT * FROM previews WHERE ended_at IS NULL AND expires_at <= ? ORDER BY expires_at LIMIT ?;

-- name: orphans
-- Open ones whose time is not over, and whose machine is destroyed.
SELECT p.* FROM previews p JOIN machines m ON m.id = p.machine_id
WHERE p.ended_at IS NULL AND p.expires_at > ? AND m.phase = 'destroyed' LIMIT ?;

-- name: save
-- All that may change of a preview, while it is in the state that it was read in.
UPDATE previews SET state = ?, ready_at = ?, ended_at = ?, error_code = ?, error_message = ?
WHERE number = ? AND state = ?;
