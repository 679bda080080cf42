-- name: insert
-- The terminal that an execution is.
INSERT INTO terminals (execution, id, machine, width, height)
SELECT number, ?2, machine, ?3, ?4 FROM executions WHERE number = ?1;

-- name: get
-- A terminal of a machine of an organization.
SELECT t.id, t.width, t.height, r.* FROM terminals t JOIN execution_records r ON r.number = t.execution
WHERE t.id = ?3 AND r.machine_id = ?2 AND r.organization_id = ?1;

-- name: of_execution
-- The terminal that an execution is.
SELECT t.id, t.width, t.height, r.* FROM execution_records r JOIN terminals t ON t.execution = r.number WHERE r.id = ?;

-- name: find
-- A terminal, whoever owns it.
SELECT t.id, t.width, t.height, r.* FROM terminals t JOIN execution_records r ON r.number = t.execution WHERE t.id = ?;

-- name: page
-- Terminals of a machine, newest first.
SELECT t.id, t.width, t.height, r.* FROM terminals t JOIN execution_records r ON r.number = t.execution
WHERE t.machine = (SELECT number FROM machines WHERE id = ?2 AND organization_id = ?1) AND t.execution < ?3
ORDER BY t.execution DESC LIMIT ?4;

-- name: resize
-- The size that was last asked for.
UPDATE terminals SET width = ?2, height = ?3 WHERE id = ?1;
