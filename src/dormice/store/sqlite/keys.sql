-- name: organization
-- The organization of a name.
SELECT id FROM organizations WHERE name = ?;

-- name: insert_organization
-- A new organization.
INSERT INTO organizations (id, name, created_at) VALUES (?, ?, ?);

-- name: insert
-- A new key; no row when its secret is there already.
INSERT INTO keys (id, organization_id, name, admin, prefix, secret_hash, created_at, revoked_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (secret_hash) DO NOTHING;

-- name: find
-- The key of a secret.
SELECT k.id, k.organization_id, o.name, k.name, k.admin, k.prefix, k.created_at, k.revoked_at, p.project_id,
    p.last_four, u.used_at
FROM keys k JOIN organizations o ON o.id = k.organization_id LEFT JOIN project_keys p ON p.key_id = k.id
    LEFT JOIN project_key_uses u ON u.key_id = k.id
WHERE k.secret_hash = ?;

-- name: of
-- Keys of an organization (of all: NULL), oldest first.
SELECT k.id, k.organization_id, o.name, k.name, k.admin, k.prefix, k.created_at, k.revoked_at, p.project_id,
    p.last_four, u.used_at
FROM keys k JOIN organizations o ON o.id = k.organization_id LEFT JOIN project_keys p ON p.key_id = k.id
    LEFT JOIN project_key_uses u ON u.key_id = k.id
WHERE k.organization_id = ?1 OR ?1 IS NULL ORDER BY k.number;

-- name: revoke
-- Revoke a key of an organization (of any: NULL); the first time counts.
UPDATE keys SET revoked_at = coalesce(revoked_at, ?3) WHERE id = ?2 AND (organization_id = ?1 OR ?1 IS NULL);

-- name: get
-- One key of an organization (of any: NULL).
SELECT k.id, k.organization_id, o.name, k.name, k.admin, k.prefix, k.created_at, k.revoked_at, p.project_id,
    p.last_four, u.used_at
FROM keys k JOIN organizations o ON o.id = k.organization_id LEFT JOIN project_keys p ON p.key_id = k.id
    LEFT JOIN project_key_uses u ON u.key_id = k.id
WHERE k.id = ?2 AND (k.organization_id = ?1 OR ?1 IS NULL);

-- name: insert_of_project
-- That a key may use one project only.
INSERT INTO project_keys (key_id, project_id, name, last_four) VALUES (?, ?, ?, ?);

-- name: names_of_project
-- The names of a project's keys.
SELECT name FROM project_keys WHERE project_id = ?;

-- name: of_project
-- The keys of a project.
SELECT k.id, k.organization_id, o.name, k.name, k.admin, k.prefix, k.created_at, k.revoked_at, p.project_id,
    p.last_four, u.used_at
FROM project_keys p JOIN keys k ON k.id = p.key_id JOIN organizations o ON o.id = k.organization_id
    LEFT JOIN project_key_uses u ON u.key_id = k.id
WHERE p.project_id = ?;

-- name: delete_of_project
-- A project's key that is revoked.
DELETE FROM project_keys WHERE key_id = ?;

-- name: use
-- A project's key was used; one that is revoked has no use any more.
INSERT INTO project_key_uses (key_id, used_at) SELECT key_id, ?2 FROM project_keys WHERE key_id = ?1
ON CONFLICT (key_id) DO UPDATE SET used_at = max(used_at, excluded.used_at);
