-- name: live
-- The ids of the machines that are not destroyed.
SELECT id FROM machines WHERE phase <> 'destroyed';

-- name: gone
-- The ids of the machines that are destroyed and not forgotten.
SELECT id FROM machines WHERE phase = 'destroyed';

-- name: since
-- When the store began.
SELECT min(created_at) FROM organizations;

-- name: has_snapshots
-- Whether the store was ever opened by a Dormice that knows snapshots.
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'snapshots';

-- name: snapshots
-- The ids of the snapshots that the node has, or is to make or delete.
SELECT id FROM snapshots WHERE state <> 'failed';

-- name: failed_snapshots
-- The ids of the snapshots that came to nothing.
SELECT id FROM snapshots WHERE state = 'failed';
