-- Indexes and tables that came after the first release of the schema. They are made at every open if they are missing, and need no
-- Tables and indexes that came after the first release of the schema. They are made at every open if they are missing, and need no
-- new schema version: an older Dormice keeps them up without knowing them.
-- Tables and indexes that came after the first release of the schema. They are made at every open if they are missing, and need no
-- new schema version: an older Dormice keeps indexes up, and leaves tables alone, without knowing them.

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

-- What becomes of a machine's memory by itself; without a row: nothing.
CREATE TABLE IF NOT EXISTS machine_memory (
    machine INTEGER PRIMARY KEY REFERENCES machines ON DELETE CASCADE,
    autoresizing INTEGER NOT NULL CHECK (autoresizing IN (0, 1)),
    unapplied_from_mib INTEGER,
    enlarging INTEGER NOT NULL CHECK (enlarging IN (0, 1)),
    autoresized_at INTEGER,
    resize_state TEXT NOT NULL,
    CONSTRAINT resize_state CHECK (resize_state IN ('stable', 'error', 'pending_capacity'))
) STRICT;

-- A whole machine, in the order in which machines.py reads it.
CREATE VIEW IF NOT EXISTS machine_records AS
SELECT
    m.*, x.autoresizing, x.unapplied_from_mib, x.enlarging, x.autoresized_at, x.resize_state, e.allow, o.origin, o.copied
FROM machines m
LEFT JOIN machine_memory x ON x.machine = m.number
LEFT JOIN machine_egress e ON e.machine = m.number
LEFT JOIN machine_origins o ON o.machine = m.number;

-- Whether machines of an organization may be given more memory by themselves; without a row they may.
CREATE TABLE IF NOT EXISTS autoresizing_policies (
    organization_id TEXT PRIMARY KEY REFERENCES organizations,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1))
) WITHOUT ROWID, STRICT;

-- What machines have used in an hour that begins at `hour`, one row for each size that they had in it. Kept longer than machines.
CREATE TABLE IF NOT EXISTS usage (
    organization_id TEXT NOT NULL,
    hour INTEGER NOT NULL,
    machine_id TEXT NOT NULL,
    vcpu REAL NOT NULL,
    memory_mib INTEGER NOT NULL,
    storage_gib INTEGER NOT NULL,
    awake_us INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL,
    windows INTEGER NOT NULL,
    last_window_end INTEGER NOT NULL,
    PRIMARY KEY (organization_id, hour, machine_id, vcpu, memory_mib, storage_gib)
) WITHOUT ROWID, STRICT;

CREATE INDEX IF NOT EXISTS usage_by_age ON usage (hour);

-- What of the present boot of a machine has been counted.
CREATE TABLE IF NOT EXISTS usage_counters (
    machine INTEGER PRIMARY KEY REFERENCES machines ON DELETE CASCADE,
    boot_id BLOB NOT NULL CHECK (length(boot_id) = 16),
    awake_us INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL
) STRICT;

-- From when to when a machine had a disk of a size; `until` is NULL as long as it has.
CREATE TABLE IF NOT EXISTS storage_spans (
    organization_id TEXT NOT NULL,
    machine_id TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER,
    storage_gib INTEGER NOT NULL,
    PRIMARY KEY (organization_id, machine_id, since)
) WITHOUT ROWID, STRICT;

CREATE INDEX IF NOT EXISTS storage_spans_by_age ON storage_spans (until) WHERE until IS NOT NULL;

-- Machines of an earlier release.
INSERT INTO storage_spans (organization_id, machine_id, since, storage_gib)
SELECT organization_id, id, created_at, storage_gib FROM machines m
WHERE phase <> 'destroyed' AND NOT EXISTS (
    SELECT 1 FROM storage_spans s WHERE s.organization_id = m.organization_id AND s.machine_id = m.id
);

-- Webhooks of organizations. A delivery is made in the transaction in which happens what it tells; `machine` is that machine as
-- it was then. Deliveries of a webhook that was deleted are nobody's, and retention deletes them in its time.
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations,
    url TEXT NOT NULL,
    events BLOB NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_at INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    failures INTEGER NOT NULL CHECK (failures >= 0),
    failing_since INTEGER,
    resume_at INTEGER NOT NULL,
    disabled_reason TEXT,
    secret BLOB NOT NULL,
    previous_secret BLOB,
    previous_until INTEGER,
    CONSTRAINT webhook_failing CHECK ((failures = 0) = (failing_since IS NULL)),
    CONSTRAINT webhook_previous CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
) WITHOUT ROWID, STRICT;

CREATE INDEX IF NOT EXISTS webhooks_of ON webhooks (organization_id, id);

CREATE TABLE IF NOT EXISTS webhook_deliveries (
    number INTEGER PRIMARY KEY,
    webhook_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    type TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    machine_id TEXT,
    execution_id TEXT,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    next_at INTEGER NOT NULL,
    first_attempt_at INTEGER,
    last_attempt_at INTEGER,
    last_status INTEGER,
    last_error TEXT,
    ended_at INTEGER,
    machine BLOB,
    UNIQUE (webhook_id, event_id),
    CONSTRAINT webhook_delivery_type CHECK (type IN (
        'execution.succeeded', 'execution.failed', 'execution.cancelled', 'execution.expired',
        'machine.running', 'machine.sleeping', 'machine.failed', 'machine.destroyed', 'webhook.test'
    )),
    CONSTRAINT webhook_delivery_state CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT webhook_delivery_end CHECK ((state = 'pending') = (ended_at IS NULL))
) STRICT;

CREATE INDEX IF NOT EXISTS webhook_deliveries_of ON webhook_deliveries (webhook_id, number);
CREATE INDEX IF NOT EXISTS webhook_deliveries_pending ON webhook_deliveries (webhook_id, next_at) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS webhook_deliveries_by_age ON webhook_deliveries (at);
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

-- Ports of machines that are served; domain/preview.py says what follows what. They go with their machine.
CREATE TABLE IF NOT EXISTS previews (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organization_id TEXT NOT NULL REFERENCES organizations,
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    created_by TEXT NOT NULL,
    port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    protocol TEXT NOT NULL CHECK (protocol IN ('http', 'https')),
    visibility TEXT NOT NULL CHECK (visibility IN ('private', 'org', 'public')),
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ready_at INTEGER,
    ended_at INTEGER,
    error_code TEXT,
    error_message TEXT,
    CONSTRAINT preview_state CHECK (state IN ('wake_in_progress', 'ready', 'closed', 'expired', 'failed')),
    CONSTRAINT preview_end CHECK ((ended_at IS NULL) = (state IN ('wake_in_progress', 'ready'))),
    CONSTRAINT preview_failure CHECK (state <> 'failed' OR error_code IS NOT NULL)
) STRICT;
CREATE INDEX IF NOT EXISTS previews_of ON previews (machine_id, number);
CREATE INDEX IF NOT EXISTS previews_open ON previews (expires_at) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS previews_waking ON previews (state) WHERE state = 'wake_in_progress';
CREATE INDEX IF NOT EXISTS previews_ended ON previews (ended_at) WHERE ended_at IS NOT NULL;

-- The right to log in to a machine by SSH.
CREATE TABLE IF NOT EXISTS ssh_sessions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    machine INTEGER NOT NULL REFERENCES machines,
    state TEXT NOT NULL,
    certificate TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ready_at INTEGER,
    error_message TEXT,
    CONSTRAINT ssh_session_state CHECK (CASE state
        WHEN 'wake_in_progress' THEN ready_at IS NULL
        WHEN 'ready' THEN ready_at IS NOT NULL
        WHEN 'closed' THEN TRUE
        WHEN 'expired' THEN TRUE
        WHEN 'failed' THEN ready_at IS NULL
        ELSE FALSE
    END),
    CONSTRAINT ssh_session_error CHECK ((state = 'failed') = (error_message IS NOT NULL))
) STRICT;

CREATE INDEX IF NOT EXISTS ssh_sessions_of ON ssh_sessions (machine, number);
CREATE INDEX IF NOT EXISTS ssh_sessions_open ON ssh_sessions (machine, expires_at)
WHERE state = 'ready' OR state = 'wake_in_progress';
CREATE INDEX IF NOT EXISTS ssh_sessions_over ON ssh_sessions (expires_at);

-- The API keys that SSH sessions were made with; those of earlier releases have no row.
CREATE TABLE IF NOT EXISTS ssh_session_makers (
    session INTEGER PRIMARY KEY REFERENCES ssh_sessions ON DELETE CASCADE,
    key_id TEXT NOT NULL
) STRICT;

-- What executions leave behind: what is to be collected of each, and what was.
CREATE TABLE IF NOT EXISTS artifact_collections (
    number INTEGER PRIMARY KEY,
    execution_id TEXT NOT NULL UNIQUE,
    organization_id TEXT NOT NULL,
    machine_id TEXT NOT NULL,
    cwd TEXT NOT NULL,
    patterns BLOB NOT NULL, -- a JSON array of text
    state TEXT NOT NULL,
    message TEXT NOT NULL,
    CONSTRAINT artifact_collection_state CHECK (state IN ('pending', 'collected', 'failed'))
) STRICT;
CREATE INDEX IF NOT EXISTS artifact_collections_pending ON artifact_collections (number) WHERE state = 'pending';
CREATE TABLE IF NOT EXISTS artifacts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    execution_id TEXT NOT NULL,
    organization_id TEXT NOT NULL,
    machine_id TEXT NOT NULL,
    name BLOB NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS artifacts_of_execution ON artifacts (execution_id);
CREATE INDEX IF NOT EXISTS artifacts_of_machine ON artifacts (machine_id, number);
CREATE INDEX IF NOT EXISTS artifacts_of_organization ON artifacts (organization_id, size);
CREATE INDEX IF NOT EXISTS artifacts_expiry ON artifacts (expires_at) WHERE expires_at IS NOT NULL;
