-- name: live
-- The ids of the machines that are not destroyed.
SELECT id FROM machines WHERE phase <> 'destroyed';

-- name: since
-- When the store began.
SELECT min(created_at) FROM organizations;
