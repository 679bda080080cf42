-- name: insert
-- A new snapshot; its number is the next one.
INSERT INTO snapshots (id, organization_id, machine_id, name, state, storage_gib, image, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING number;

-- name: count_of_machine
-- How many a machine has.
SELECT count(*) FROM snapshots WHERE organization_id = ? AND machine_id = ?;

-- name: count
-- How many an organization has.
SELECT count(*) FROM snapshots WHERE organization_id = ?;

-- name: get
-- One snapshot of an organization.
SELECT * FROM snapshots WHERE id = ?2 AND organization_id = ?1;

-- name: load
-- One snapshot, to be changed.
SELECT * FROM snapshots WHERE id = ?;

-- name: page
-- Snapshots of an organization, newest first.
SELECT * FROM snapshots WHERE organization_id = ? AND number < ? ORDER BY number DESC LIMIT ?;

-- name: page_of_machine
-- Snapshots of one machine, newest first.
SELECT * FROM snapshots
WHERE organization_id = ? AND machine_id = ? AND number < ? ORDER BY number DESC LIMIT ?;

-- name: unsettled
-- What the node still has to make or delete, oldest first.
SELECT * FROM snapshots WHERE state IN ('creating', 'deleting') ORDER BY number;

-- name: save
-- All that may change of a snapshot.
UPDATE snapshots SET state = ?, bytes = ?, error = ? WHERE number = ?;

-- name: delete
-- What is left of a deleted one.
DELETE FROM snapshots WHERE number = ?;
