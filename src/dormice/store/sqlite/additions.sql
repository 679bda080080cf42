-- Indexes that came after the first release of the schema. They are made at every open if they are missing, and need no
-- new schema version: an older Dormice keeps them up without knowing them.

-- What has ended, by when: retention deletes from the old end, however much there is.
CREATE INDEX IF NOT EXISTS executions_ended ON executions (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS machines_destroyed ON machines (last_transition_at) WHERE phase = 'destroyed';
