-- Indexes and tables that came after the first release of the schema. They are made at every open if they are missing, and need
-- no new schema version: an older Dormice keeps them up without knowing them.

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

-- What a machine may reach, where that is not everything public: a JSON array of names and networks.
CREATE TABLE IF NOT EXISTS machine_egress (
    machine INTEGER PRIMARY KEY REFERENCES machines ON DELETE CASCADE,
    allow TEXT NOT NULL
) STRICT;

-- The snapshot or the machine whose disk a machine's disk is a copy of, and whether it has been copied.
CREATE TABLE IF NOT EXISTS machine_origins (
    machine INTEGER PRIMARY KEY REFERENCES machines ON DELETE CASCADE,
    origin TEXT NOT NULL,
    copied INTEGER NOT NULL CHECK (copied IN (0, 1))
) STRICT;

-- A whole machine, in the order in which machines.py reads it.
CREATE VIEW IF NOT EXISTS machine_records AS
SELECT m.*, e.allow, o.origin, o.copied
FROM machines m
LEFT JOIN machine_egress e ON e.machine = m.number
LEFT JOIN machine_origins o ON o.machine = m.number;

-- Copies of machines' disks. They outlive their machine, so it is named and not referred to.
CREATE TABLE IF NOT EXISTS snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    organization_id TEXT NOT NULL REFERENCES organizations,
    machine_id TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    storage_gib INTEGER NOT NULL CHECK (storage_gib > 0),
    image TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    error TEXT,
    CONSTRAINT snapshot_state CHECK (CASE state
        WHEN 'creating' THEN error IS NULL
        WHEN 'ready' THEN error IS NULL
        WHEN 'failed' THEN error IS NOT NULL
        WHEN 'deleting' THEN TRUE
        ELSE FALSE
    END)
) STRICT;

CREATE INDEX IF NOT EXISTS snapshots_of ON snapshots (organization_id, machine_id, number);
CREATE INDEX IF NOT EXISTS snapshots_of_all ON snapshots (organization_id, number);
CREATE INDEX IF NOT EXISTS snapshots_unsettled ON snapshots (number) WHERE state IN ('creating', 'deleting');
