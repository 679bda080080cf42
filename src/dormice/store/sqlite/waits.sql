-- name: find
-- One wait.
SELECT kind, due_at, topic, event_type, remaining, batch, created_at FROM waits WHERE run = ? AND step_key = ?;

-- name: insert
-- A wait; one that is there already stays as it is.
INSERT INTO waits (run, step_key, kind, due_at, topic, event_type, remaining, batch, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: insert_together
-- One of several waits that the run goes on after together; one that is there already stays as it is.
INSERT INTO waits (run, step_key, kind, due_at, topic, event_type, created_at, together)
VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO NOTHING;

-- name: count_down
-- One run of a batch has ended; how many have not.
UPDATE waits SET remaining = remaining - 1 WHERE run = ? AND step_key = ? AND kind = 'batch' RETURNING remaining;

-- name: delete
-- A wait that is over; whether it was one of several.
DELETE FROM waits WHERE run = ? AND step_key = ? RETURNING together;

-- name: others
-- Whether the run goes on only after more waits.
SELECT 1 FROM waits WHERE run = ? AND together LIMIT 1;

-- name: delete_all
-- The waits of a run that has ended.
DELETE FROM waits WHERE run = ?;

-- name: dues
-- Every wait that ends at a moment.
SELECT r.id, w.step_key, w.due_at FROM waits w CROSS JOIN runs r ON r.number = w.run WHERE w.due_at IS NOT NULL;

-- name: open
-- Every wait of a run that waits.
SELECT r.id, w.step_key, w.kind FROM waits w CROSS JOIN runs r ON r.number = w.run WHERE r.state = 'waiting';

-- name: for_topic
-- Who waits for events of a topic.
SELECT r.id, w.step_key, w.kind, w.event_type, w.together, w.created_at FROM waits w CROSS JOIN runs r ON r.number = w.run
WHERE w.topic = ?1 AND r.project_id = ?2;

-- name: for_answer
-- Whether a run is suspended until an answer comes: this one, or any (NULL).
SELECT 1 FROM waits w CROSS JOIN runs r ON r.number = w.run
WHERE w.topic = ?1 AND w.event_type = ?2 AND w.kind = 'suspend' AND r.project_id = ?3 AND r.id = coalesce(?4, r.id) LIMIT 1;

-- name: cursor
-- The last event of a topic that a run was given.
SELECT sequence FROM wait_cursors WHERE run = ? AND topic = ?;

-- name: set_cursor
-- The last event of a topic that a run was given.
INSERT OR REPLACE INTO wait_cursors (run, topic, sequence) VALUES (?, ?, ?);

-- name: delete_cursors
-- Those of a run that has ended.
DELETE FROM wait_cursors WHERE run = ?;
