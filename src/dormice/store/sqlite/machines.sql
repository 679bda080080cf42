-- name: insert
-- A new machine; its number is the next one.
INSERT INTO machines (
    id, organization_id, vcpu, memory_mib, storage_gib, image, autosleep_seconds, desired_state, phase, reason,
    retryable, revision, created_at, last_transition_at, last_progress_at, last_activity_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number;

-- name: get
-- One machine of an organization.
SELECT * FROM machine_records WHERE id = ?2 AND organization_id = ?1;

-- name: load
-- One machine, to be changed.
SELECT * FROM machine_records WHERE id = ?;

-- name: page
-- Machines of an organization without the destroyed ones, newest first.
SELECT * FROM machine_records
WHERE organization_id = ? AND number < ? AND phase <> 'destroyed' ORDER BY number DESC LIMIT ?;

-- name: page_with_destroyed
-- Machines of an organization, newest first.
SELECT * FROM machine_records WHERE organization_id = ? AND number < ? ORDER BY number DESC LIMIT ?;

-- name: live
-- Machines of every organization without the destroyed ones, oldest first.
SELECT * FROM machine_records WHERE phase <> 'destroyed' ORDER BY +number;

-- name: save
-- All that may change of a machine.
UPDATE machines SET
    vcpu = ?, memory_mib = ?, storage_gib = ?, autosleep_seconds = ?, desired_state = ?, phase = ?, reason = ?,
    retryable = ?, revision = ?, last_transition_at = ?, last_progress_at = ?, last_activity_at = ?, boot_id = ?,
    last_error = ?
WHERE number = ?;

-- name: set_egress
-- What it may reach.
INSERT OR REPLACE INTO machine_egress (machine, allow) VALUES (?, ?);

-- name: drop_egress
-- It may reach everything public.
DELETE FROM machine_egress WHERE machine = ?;

-- name: set_origin
-- What its disk is a copy of, or is to be.
INSERT OR REPLACE INTO machine_origins (machine, origin, copied) VALUES (?, ?, ?);

-- name: save_memory
-- What becomes of a machine's memory by itself.
INSERT INTO machine_memory (machine, autoresizing, unapplied_from_mib, enlarging, autoresized_at, resize_state)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (machine) DO UPDATE SET
    autoresizing = excluded.autoresizing, unapplied_from_mib = excluded.unapplied_from_mib,
    enlarging = excluded.enlarging, autoresized_at = excluded.autoresized_at, resize_state = excluded.resize_state;
