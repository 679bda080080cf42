-- name: insert
-- An event; its sequence is the next one.
INSERT INTO events (id, project_id, topic, event_type, data, run_id, attempt_number, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING sequence;

-- name: after
-- Events of a topic beyond a sequence, in their order.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND sequence > ?3 AND created_at > ?4 ORDER BY sequence LIMIT ?5;

-- name: newest
-- Events of a topic beyond a sequence, the newest first.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND sequence > ?3 AND created_at > ?4 ORDER BY sequence DESC LIMIT ?5;

-- name: first_of_type
-- The first event of a type on a topic beyond a sequence.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND sequence > ?3 AND event_type = ?4 ORDER BY sequence LIMIT 1;

-- name: suspended
-- The sequence of the event that a run published when it was suspended at a step; of anybody's, when it did not say whose.
SELECT sequence FROM events WHERE project_id = ?1 AND topic = ?2 AND event_type = ?3
ORDER BY coalesce(run_id, ?4) <> ?4, sequence LIMIT 1;
