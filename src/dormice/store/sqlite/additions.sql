-- Indexes that came after the first release of the schema. They are made at every open if they are missing, and need no
-- new schema version: an older Dormice keeps them up without knowing them.

-- What has ended, by when: retention deletes from the old end, however much there is.
CREATE INDEX IF NOT EXISTS executions_ended ON executions (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS machines_destroyed ON machines (last_transition_at) WHERE phase = 'destroyed';

-- Terminals: executions that are shown in another way.
CREATE TABLE IF NOT EXISTS terminals (
    execution INTEGER PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
    id TEXT NOT NULL UNIQUE,
    machine INTEGER NOT NULL REFERENCES machines,
    width INTEGER NOT NULL CHECK (width BETWEEN 1 AND 65535),
    height INTEGER NOT NULL CHECK (height BETWEEN 1 AND 65535)
) STRICT;
CREATE INDEX IF NOT EXISTS terminals_of ON terminals (machine, execution);
