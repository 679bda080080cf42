-- name: counter
-- What has been counted of a machine's boots.
SELECT boot_id, awake_us, cpu_us FROM usage_counters WHERE machine = ?;

-- name: set_counter
-- Remember it; a machine that is deleted has none.
INSERT INTO usage_counters (machine, boot_id, awake_us, cpu_us) SELECT number, ?2, ?3, ?4 FROM machines WHERE number = ?1
ON CONFLICT (machine) DO UPDATE SET boot_id = excluded.boot_id, awake_us = excluded.awake_us, cpu_us = excluded.cpu_us;

-- name: add
-- One more window in an hour of a machine.
INSERT INTO usage (
    organization_id, hour, machine_id, vcpu, memory_mib, storage_gib, awake_us, cpu_us, windows, last_window_end
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?)
ON CONFLICT DO UPDATE SET
    awake_us = awake_us + excluded.awake_us, cpu_us = cpu_us + excluded.cpu_us, windows = windows + 1,
    last_window_end = max(last_window_end, excluded.last_window_end);

-- name: hours
-- Hours of all machines of an organization.
SELECT hour, machine_id, vcpu, memory_mib, storage_gib, awake_us, cpu_us, windows, last_window_end
FROM usage WHERE organization_id = ?1 AND hour >= ?2 AND hour < ?3 AND (?4 IS NULL OR machine_id = ?4) ORDER BY hour, machine_id;

-- name: close_span
-- A machine's disk has this size no longer.
UPDATE storage_spans SET until = ?3 WHERE organization_id = ?1 AND machine_id = ?2 AND until IS NULL;

-- name: open_span
-- A machine's disk has a size from now on.
INSERT INTO storage_spans (organization_id, machine_id, since, storage_gib) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET until = NULL, storage_gib = excluded.storage_gib;

-- name: spans
-- Sizes of disks in a time, of one machine or all.
SELECT machine_id, since, until, storage_gib FROM storage_spans
WHERE organization_id = ?1 AND (?4 IS NULL OR machine_id = ?4) AND since < ?3 AND (until IS NULL OR until > ?2)
ORDER BY machine_id, since LIMIT ?5;

-- name: forget_hours
-- The oldest hours.
DELETE FROM usage WHERE (organization_id, hour, machine_id, vcpu, memory_mib, storage_gib) IN (
    SELECT organization_id, hour, machine_id, vcpu, memory_mib, storage_gib FROM usage WHERE hour < ? LIMIT ?
);

-- name: forget_spans
-- The disks that are gone the longest.
DELETE FROM storage_spans WHERE (organization_id, machine_id, since) IN (
    SELECT organization_id, machine_id, since FROM storage_spans WHERE until < ? LIMIT ?
);

-- name: policy
-- What an organization has said of more memory.
SELECT enabled FROM autoresizing_policies WHERE organization_id = ?;

-- name: set_policy
-- What it says from now on.
INSERT INTO autoresizing_policies (organization_id, enabled) VALUES (?, ?)
ON CONFLICT (organization_id) DO UPDATE SET enabled = excluded.enabled;
