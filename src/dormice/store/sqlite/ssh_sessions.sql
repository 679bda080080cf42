-- name: machine
-- The number of a machine of an organization.
SELECT number FROM machines WHERE id = ?2 AND organization_id = ?1;

-- name: count
-- How many sessions of a machine are open and not over.
SELECT count(*) FROM ssh_sessions
WHERE machine = ?1 AND expires_at > ?2 AND (state = 'ready' OR state = 'wake_in_progress');

-- name: in_state
-- How many sessions of all machines are in a state and not over.
SELECT count(*) FROM ssh_sessions s CROSS JOIN machines m ON m.number = s.machine
WHERE s.expires_at > ?1 AND s.state = ?2 AND m.phase <> 'destroyed';

-- name: insert
-- A new session; its number is the next one.
INSERT INTO ssh_sessions (id, machine, state, certificate, created_at, expires_at, ready_at)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: insert_maker
-- With which API key a session was made.
INSERT INTO ssh_session_makers (session, key_id) VALUES (?, ?);

-- name: get
-- One session of a machine of an organization.
SELECT s.number, s.id, m.organization_id, m.id, s.state, s.certificate, s.created_at, s.expires_at, s.ready_at, s.error_message, k.key_id
FROM ssh_sessions s JOIN machines m ON m.number = s.machine LEFT JOIN ssh_session_makers k ON k.session = s.number
WHERE s.id = ?3 AND m.id = ?2 AND m.organization_id = ?1;

-- name: find
-- One session.
SELECT s.number, s.id, m.organization_id, m.id, s.state, s.certificate, s.created_at, s.expires_at, s.ready_at, s.error_message, k.key_id
FROM ssh_sessions s JOIN machines m ON m.number = s.machine LEFT JOIN ssh_session_makers k ON k.session = s.number
WHERE s.id = ?;

-- name: page
-- Sessions of a machine, newest first.
SELECT s.number, s.id, m.organization_id, m.id, s.state, s.certificate, s.created_at, s.expires_at, s.ready_at, s.error_message, k.key_id
FROM machines m JOIN ssh_sessions s ON s.machine = m.number LEFT JOIN ssh_session_makers k ON k.session = s.number
WHERE m.id = ?2 AND m.organization_id = ?1 AND s.number < ?3 ORDER BY s.number DESC LIMIT ?4;

-- name: advance
-- Where a session is now, if it is where it was.
UPDATE ssh_sessions SET state = ?3, ready_at = ?4, error_message = ?5 WHERE id = ?1 AND state = ?2;
