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
SELECT k.id, k.organization_id, o.name, k.name, k.admin, k.prefix, k.created_at, k.revoked_at
FROM keys k JOIN organizations o ON o.id = k.organization_id WHERE k.secret_hash = ?;

-- name: of
-- Keys of an organization (of all: NULL), oldest first.
SELECT k.id, k.organization_id, o.name, k.name, k.admin, k.prefix, k.created_at, k.revoked_at
FROM keys k JOIN organizations o ON o.id = k.organization_id
WHERE k.organization_id = ?1 OR ?1 IS NULL ORDER BY k.number;

-- name: revoke
-- Revoke a key of an organization (of any: NULL); the first time counts.
UPDATE keys SET revoked_at = coalesce(revoked_at, ?3) WHERE id = ?2 AND (organization_id = ?1 OR ?1 IS NULL);

-- name: get
-- One key of an organization (of any: NULL).
SELECT k.id, k.organization_id, o.name, k.name, k.admin, k.prefix, k.created_at, k.revoked_at
FROM keys k JOIN organizations o ON o.id = k.organization_id
WHERE k.id = ?2 AND (k.organization_id = ?1 OR ?1 IS NULL);
