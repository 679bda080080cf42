-- name: insert
-- A trace, or that something of it was reported.
INSERT INTO traces (project_id, trace_id, reported_at, has_error) VALUES (?, ?, ?, 0)
ON CONFLICT DO UPDATE SET reported_at = excluded.reported_at RETURNING number;

-- name: put
-- A span, or how it is now.
INSERT INTO spans (trace, span_id, parent_span_id, name, span_type, started_at, ended_at, document)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    parent_span_id = excluded.parent_span_id, name = excluded.name, span_type = excluded.span_type,
    started_at = excluded.started_at, ended_at = excluded.ended_at, document = excluded.document;

-- name: set_first
-- The first of its root spans, if none is earlier.
UPDATE traces SET first_span = ?2, root_span_type = ?3, root_span_name = ?4, started_at = ?5
WHERE number = ?1 AND (started_at IS NULL OR started_at >= ?5);

-- name: set_last
-- The last of its root spans, if none is later.
UPDATE traces SET last_span = ?2, has_error = ?3, last_started_at = ?4
WHERE number = ?1 AND (last_started_at IS NULL OR last_started_at <= ?4);

-- name: spans
-- The spans of a trace by their start.
SELECT s.span_id, s.parent_span_id, s.name, s.span_type, s.started_at, s.ended_at, s.document
FROM traces t JOIN spans s ON s.trace = t.number
WHERE t.project_id = ? AND t.trace_id = ? ORDER BY s.started_at, s.span_id LIMIT ?;

-- name: root
-- A trace with its first and its last root span.
SELECT t.trace_id,
    f.span_id, f.parent_span_id, f.name, f.span_type, f.started_at, f.ended_at, f.document,
    l.span_id, l.parent_span_id, l.name, l.span_type, l.started_at, l.ended_at, l.document
FROM traces t JOIN spans f ON f.trace = t.number AND f.span_id = t.first_span
JOIN spans l ON l.trace = t.number AND l.span_id = t.last_span
WHERE t.project_id = ? AND t.trace_id = ?;

-- name: newest
-- Traces of runs of a project, the newest first. (Workers report traces of the requests that they serve besides.)
SELECT trace_id FROM traces
WHERE project_id = ?1 AND started_at >= ?2 AND started_at < ?3 AND (?6 IS NULL OR has_error = ?6)
AND root_span_type IN ('workflow', 'agent', 'tool')
ORDER BY started_at DESC, number DESC LIMIT ?4 OFFSET ?5;

-- name: newest_failed
-- Those that have failed.
SELECT trace_id FROM traces
WHERE project_id = ?1 AND started_at >= ?2 AND started_at < ?3 AND has_error = 1 AND ?6 = 1
AND root_span_type IN ('workflow', 'agent', 'tool')
ORDER BY started_at DESC, number DESC LIMIT ?4 OFFSET ?5;

-- name: newest_of_type
-- Those whose root span is of a type.
SELECT trace_id FROM traces
WHERE project_id = ?1 AND root_span_type = ?7 AND started_at >= ?2 AND started_at < ?3
AND (?6 IS NULL OR has_error = ?6)
ORDER BY started_at DESC, number DESC LIMIT ?4 OFFSET ?5;

-- name: newest_of_name
-- Those whose root span has a name.
SELECT trace_id FROM traces
WHERE project_id = ?1 AND root_span_name = ?7 AND started_at >= ?2 AND started_at < ?3
AND (?6 IS NULL OR has_error = ?6) AND (?8 IS NULL OR root_span_type = ?8)
ORDER BY started_at DESC, number DESC LIMIT ?4 OFFSET ?5;
