-- name: insert
-- A new webhook, unless the organization has enough of them.
INSERT INTO webhooks (id, organization_id, url, events, enabled, created_at, revision, failures, resume_at, secret)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, 1, 0, 0, ?7
WHERE (SELECT count(*) FROM webhooks WHERE organization_id = ?2) < ?8
RETURNING *;

-- name: get
-- One webhook of an organization.
SELECT * FROM webhooks WHERE id = ?2 AND organization_id = ?1;

-- name: load
-- One webhook, to be sent to.
SELECT * FROM webhooks WHERE id = ?;

-- name: of
-- Webhooks of an organization, oldest first.
SELECT * FROM webhooks WHERE organization_id = ? ORDER BY id;

-- name: change
-- What its owner has changed; it may be tried at once again.
UPDATE webhooks SET
    url = coalesce(?3, url), events = coalesce(?4, events), enabled = coalesce(?5, enabled), revision = revision + 1,
    failures = 0, failing_since = NULL, resume_at = 0, disabled_reason = NULL
WHERE id = ?2 AND organization_id = ?1 RETURNING *;

-- name: rotate
-- Another secret; the one before it counts for a while.
UPDATE webhooks SET secret = ?3, previous_secret = secret, previous_until = ?4, revision = revision + 1
WHERE id = ?2 AND organization_id = ?1 RETURNING *;

-- name: delete
-- A webhook.
DELETE FROM webhooks WHERE id = ?2 AND organization_id = ?1 RETURNING *;

-- name: condition
-- How it does, unless its owner has changed it meanwhile.
UPDATE webhooks SET
    failures = ?3, failing_since = ?4, resume_at = ?5, disabled_reason = ?6, enabled = enabled AND ?6 IS NULL
WHERE id = ?1 AND revision = ?2;

-- name: told
-- Who may have to be told of what happens in an organization.
SELECT id, events FROM webhooks WHERE organization_id = ? AND enabled;

-- name: tell
-- Something to tell; nothing when that is recorded already.
INSERT INTO webhook_deliveries (
    webhook_id, event_id, type, at, state, machine_id, execution_id, attempts, next_at, machine
) VALUES (?1, ?2, ?3, ?4, 'pending', ?5, ?6, 0, ?4, ?7) ON CONFLICT DO NOTHING;

-- name: deliveries
-- Deliveries of a webhook, newest first.
SELECT * FROM webhook_deliveries WHERE webhook_id = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3;

-- name: delivery
-- One delivery of a webhook.
SELECT * FROM webhook_deliveries WHERE webhook_id = ?1 AND event_id = ?2;

-- name: redeliver
-- A delivery that is due again.
UPDATE webhook_deliveries SET state = ?3, next_at = ?4, first_attempt_at = NULL, ended_at = NULL
WHERE webhook_id = ?1 AND event_id = ?2 RETURNING *;

-- name: due
-- When each webhook that has something to be sent is to be sent to.
SELECT w.id, max(w.resume_at, (
    SELECT min(next_at) FROM webhook_deliveries WHERE webhook_id = w.id AND state = 'pending'
)) AS due FROM webhooks w WHERE w.enabled AND due IS NOT NULL;

-- name: pending
-- How much is to be sent to all together, and when the first of it is due.
SELECT coalesce(sum(count), 0), min(due) FROM (
    SELECT
        (SELECT count(*) FROM webhook_deliveries WHERE webhook_id = w.id AND state = 'pending') AS count,
        max(w.resume_at, (
            SELECT min(next_at) FROM webhook_deliveries WHERE webhook_id = w.id AND state = 'pending'
        )) AS due
    FROM webhooks w WHERE w.enabled
);

-- name: due_of
-- Deliveries of a webhook that are due, the longest first.
SELECT * FROM webhook_deliveries WHERE webhook_id = ?1 AND state = 'pending' AND next_at <= ?2 ORDER BY next_at LIMIT ?3;

-- name: attempted
-- What came of an attempt, unless the delivery is another one by now: attempted, ended, or begun anew.
UPDATE webhook_deliveries SET
    state = ?4, attempts = attempts + 1, next_at = ?5, first_attempt_at = coalesce(first_attempt_at, ?6),
    last_attempt_at = ?6, last_status = ?7, last_error = ?8, ended_at = ?9
WHERE number = ?1 AND state = ?2 AND attempts = ?3 AND first_attempt_at IS ?10;

-- name: delete_old
-- Deliveries of what happened before a moment, the longest ago first.
DELETE FROM webhook_deliveries WHERE number IN (
    SELECT number FROM webhook_deliveries WHERE at < ?1 ORDER BY at LIMIT ?2
);
