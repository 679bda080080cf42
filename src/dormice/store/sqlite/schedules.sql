-- name: put
-- A schedule, or how it is now. One that ticks as before keeps its next tick.
INSERT INTO schedules (
    id, project_id, workflow_id, key, cron, timezone, catch_up, overlap, status, revision, next_run_at, created_at, updated_at
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, coalesce(?7, 'none'), coalesce(?8, 0), 'active', 1, ?9, ?10, ?10)
ON CONFLICT (project_id, workflow_id, key) DO UPDATE SET
    next_run_at = iif(cron = ?5 AND timezone = ?6, next_run_at, ?9),
    cron = ?5, timezone = ?6, catch_up = coalesce(?7, catch_up), overlap = coalesce(?8, overlap),
    revision = revision + 1, updated_at = ?10
RETURNING *;

-- name: overlaps
-- Whether a schedule of a workflow may overlap.
SELECT 1 FROM schedules WHERE project_id = ? AND workflow_id = ? AND overlap LIMIT 1;

-- name: all
-- Every schedule, in the order in which they were made.
SELECT * FROM schedules ORDER BY id;

-- name: load
-- One schedule, to be changed.
SELECT * FROM schedules WHERE id = ?;

-- name: pause
-- A schedule that ticks no more; one that is paused stays as it is.
UPDATE schedules SET
    revision = revision + (status <> 'paused'), updated_at = iif(status = 'paused', updated_at, ?3), status = 'paused'
WHERE id = ?2 AND project_id = ?1 RETURNING *;

-- name: resume
-- A schedule that ticks again; one that does stays as it is.
UPDATE schedules SET
    revision = revision + (status = 'paused'), updated_at = iif(status = 'paused', ?3, updated_at),
    next_run_at = iif(status = 'paused', ?4, next_run_at), status = 'active'
WHERE id = ?2 AND project_id = ?1 RETURNING *;

-- name: delete
-- A schedule, with its ticks.
DELETE FROM schedules WHERE id = ?2 AND project_id = ?1 RETURNING id;

-- name: open_ticks
-- Ticks whose runs are open as far as is known, and whether they are.
SELECT t.at, t.run_id, r.number IS NOT NULL AND r.completed_at IS NULL
FROM schedule_ticks t LEFT JOIN runs r ON r.id = t.run_id WHERE t.schedule_id = ? AND t.open ORDER BY t.at;

-- name: close_tick
-- The run of a tick has ended.
UPDATE schedule_ticks SET open = 0 WHERE schedule_id = ? AND at = ?;

-- name: insert_tick
-- A tick; one that is there already stays as it is.
INSERT INTO schedule_ticks (schedule_id, at, outcome, run_id, open, decided_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: prune_ticks
-- All but the last ticks, and those whose runs are open.
DELETE FROM schedule_ticks WHERE schedule_id = ?1 AND NOT open AND at <= (
    SELECT at FROM schedule_ticks WHERE schedule_id = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2
);

-- name: go_on
-- What became of the schedule by its ticks.
UPDATE schedules SET
    revision = revision + 1, next_run_at = ?2, last_run_at = coalesce(?3, last_run_at), last_skipped_at = coalesce(?4, last_skipped_at)
WHERE id = ?1 RETURNING *;

-- name: ticks
-- The latest ticks first.
SELECT at, outcome, run_id, decided_at FROM schedule_ticks WHERE schedule_id = ? AND at < ? ORDER BY at DESC LIMIT ?;
