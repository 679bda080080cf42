-- name: insert
-- An event; its sequence is the next one.
INSERT INTO events (id, project_id, topic, event_type, data, run_id, attempt_number, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING sequence;

-- name: after
-- Events of a topic beyond a sequence, in their order.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND sequence > ?3 AND created_at > ?4 ORDER BY sequence LIMIT ?5;

-- name: address
-- An event is for one suspended run alone.
INSERT INTO addressed_events (sequence, run_id) VALUES (?, ?);

-- name: of_others
-- The first event of a topic beyond a sequence that a run has not published itself.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND sequence > ?3 AND created_at > ?4 AND run_id IS NOT ?5 ORDER BY sequence LIMIT 1;

-- name: newest
-- Events of a topic before a sequence, or before no one (0), the newest first.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND sequence < coalesce(nullif(?3, 0), 9223372036854775807) AND created_at > ?4 ORDER BY sequence DESC LIMIT ?5;

-- name: resumed
-- The first event of a type, a `resume_…`, on a topic beyond a sequence, that is for a run or for everybody.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND event_type = ?4 AND sequence > ?3
AND substr(event_type, 1, 7) IN ('suspend', 'resume_')
AND NOT EXISTS (SELECT 1 FROM addressed_events a WHERE a.sequence = events.sequence AND a.run_id IS NOT ?5)
ORDER BY sequence LIMIT 1;

-- name: asked
-- The last event of a type, a `suspend_…`, on a topic.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND event_type = ?3
AND substr(event_type, 1, 7) IN ('suspend', 'resume_') ORDER BY sequence DESC LIMIT 1;

-- name: asked_by
-- The last one that a run has published, or somebody who did not say who it is.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND event_type = ?3 AND (run_id = ?4 OR run_id IS NULL)
AND substr(event_type, 1, 7) IN ('suspend', 'resume_') ORDER BY sequence DESC LIMIT 1;

-- name: open_question
-- The last event of a type, a `suspend_…`, on a topic whose run is suspended at that step.
SELECT e.sequence, e.id, e.topic, e.event_type, e.data, e.created_at, e.run_id, e.attempt_number FROM events e
CROSS JOIN runs r ON r.id = e.run_id AND r.project_id = e.project_id
CROSS JOIN waits w ON w.run = r.number AND w.step_key = ?4 AND w.kind = 'suspend' AND w.topic = e.topic
WHERE e.project_id = ?1 AND e.topic = ?2 AND e.event_type = ?3
AND substr(e.event_type, 1, 7) IN ('suspend', 'resume_') ORDER BY e.sequence DESC LIMIT 1;

-- name: questions
-- Suspensions of a topic, and their answers.
SELECT sequence, id, topic, event_type, data, created_at, run_id, attempt_number FROM events
WHERE project_id = ?1 AND topic = ?2 AND substr(event_type, 1, 7) IN ('suspend', 'resume_') LIMIT ?3;

-- name: suspended
-- The first event of a type, a `suspend_…`, that a run has published on a topic.
SELECT sequence FROM events
WHERE project_id = ?1 AND topic = ?2 AND event_type = ?3 AND run_id = ?4
AND substr(event_type, 1, 7) IN ('suspend', 'resume_') ORDER BY sequence LIMIT 1;

-- name: suspended_by_anybody
-- The same of a run that did not say who it is.
SELECT sequence FROM events
WHERE project_id = ?1 AND topic = ?2 AND event_type = ?3 AND run_id IS NULL
AND substr(event_type, 1, 7) IN ('suspend', 'resume_') ORDER BY sequence LIMIT 1;
