-- The whole store of one Dormice server.
--
-- An organization owns keys and machines; a machine runs executions. An execution is one row of `executions` that
-- changes as it goes on, one row of `requests` that never changes (so that a long argv is not rewritten with every
-- change), a numbered `log` without gaps that holds its lifecycle and its output, and, only for as long as they are
-- needed, sealed `secrets`. `idempotency` remembers which request made what.
--
-- Moments are microseconds since the epoch, UTC. `number` orders lists and cursors. Which state follows which is
-- decided in domain/; the CHECKs here refuse rows that contradict themselves.

CREATE TABLE store (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE organizations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE keys (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organization_id TEXT NOT NULL REFERENCES organizations,
    name TEXT NOT NULL,
    admin INTEGER NOT NULL CHECK (admin IN (0, 1)),
    prefix TEXT NOT NULL,
    secret_hash BLOB NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE machines (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organization_id TEXT NOT NULL REFERENCES organizations,
    vcpu REAL NOT NULL,
    memory_mib INTEGER NOT NULL,
    storage_gib INTEGER NOT NULL,
    image TEXT NOT NULL,
    autosleep_seconds INTEGER NOT NULL CHECK (autosleep_seconds >= 0),
    desired_state TEXT NOT NULL,
    phase TEXT NOT NULL,
    reason TEXT NOT NULL,
    retryable INTEGER NOT NULL CHECK (retryable IN (0, 1)),
    revision INTEGER NOT NULL CHECK (revision > 0),
    created_at INTEGER NOT NULL,
    last_transition_at INTEGER NOT NULL,
    last_progress_at INTEGER NOT NULL,
    last_activity_at INTEGER NOT NULL,
    boot_id BLOB CHECK (length(boot_id) = 16),
    last_error TEXT,
    CONSTRAINT machine_desired_state CHECK (desired_state IN ('running', 'sleeping', 'destroyed')),
    CONSTRAINT machine_phase CHECK (phase IN (
        'accepted', 'placement_pending', 'starting', 'running', 'stopping', 'sleeping',
        'destroying', 'destroyed', 'failed'
    )),
    CONSTRAINT machine_boot CHECK (phase <> 'running' OR boot_id IS NOT NULL)
) STRICT;

CREATE INDEX machines_of ON machines (organization_id, number);
CREATE INDEX machines_live ON machines (organization_id, number) WHERE phase <> 'destroyed';

CREATE TABLE executions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    machine INTEGER NOT NULL REFERENCES machines,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    start_by INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    exit_code INTEGER,
    signal INTEGER,
    error_code TEXT,
    error_message TEXT,
    stdout_bytes INTEGER NOT NULL,
    stderr_bytes INTEGER NOT NULL,
    stdout_kept INTEGER NOT NULL,
    stderr_kept INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    boot_id BLOB CHECK (length(boot_id) = 16),
    fence INTEGER NOT NULL,
    cancel_requested_at INTEGER,
    stdin_offset INTEGER NOT NULL,
    stdin_eof INTEGER NOT NULL CHECK (stdin_eof IN (0, 1)),
    -- What each state demands of the rest of the row. (A CASE is also several times cheaper than an IN with many words,
    -- for which SQLite fills a table at every statement.)
    CONSTRAINT execution_state CHECK (CASE state
        WHEN 'wake_in_progress' THEN started_at IS NULL AND completed_at IS NULL AND boot_id IS NULL
        WHEN 'queued' THEN started_at IS NULL AND completed_at IS NULL
        WHEN 'running' THEN started_at IS NOT NULL AND completed_at IS NULL AND boot_id IS NOT NULL
        WHEN 'succeeded' THEN started_at IS NOT NULL AND completed_at IS NOT NULL AND exit_code IS 0
        WHEN 'failed' THEN completed_at IS NOT NULL AND error_code IS NOT NULL
        WHEN 'cancelled' THEN completed_at IS NOT NULL AND error_code IS NOT NULL
        WHEN 'expired' THEN completed_at IS NOT NULL AND error_code IS NOT NULL AND started_at IS NULL
        ELSE FALSE
    END),
    CONSTRAINT execution_exit CHECK (
        (exit_code IS NULL OR signal IS NULL)
        AND (coalesce(exit_code, signal) IS NULL OR (started_at IS NOT NULL AND completed_at IS NOT NULL))
    ),
    CONSTRAINT execution_error CHECK (
        (error_code IS NULL) = (error_message IS NULL)
        AND (error_code IS NULL OR (completed_at IS NOT NULL AND state <> 'succeeded'))
    ),
    CONSTRAINT execution_error_code CHECK (error_code IS NULL OR error_code IN (
        'nonzero_exit', 'signalled', 'timeout', 'oom_killed', 'command_not_found', 'permission_denied',
        'cwd_not_found', 'spawn_failed', 'resource_exhausted', 'cancelled', 'start_deadline_exceeded',
        'wake_failed', 'machine_lost', 'execution_runner_interrupted'
    )),
    CONSTRAINT execution_claim CHECK (fence >= (boot_id IS NOT NULL)),
    CONSTRAINT execution_output CHECK (
        stdout_kept BETWEEN 0 AND stdout_bytes AND stderr_kept BETWEEN 0 AND stderr_bytes
    ),
    CONSTRAINT execution_counters CHECK (last_sequence > 0 AND stdin_offset >= 0)
) STRICT;

CREATE INDEX executions_of ON executions (machine, number);
CREATE INDEX executions_open ON executions (machine, number) WHERE completed_at IS NULL;

CREATE TABLE requests (
    execution INTEGER PRIMARY KEY REFERENCES executions,
    command BLOB NOT NULL,
    cwd TEXT NOT NULL,
    env_keys BLOB NOT NULL,
    stdin_mode TEXT NOT NULL,
    timeout_ms INTEGER CHECK (timeout_ms > 0),
    CONSTRAINT request_stdin_mode CHECK (stdin_mode IN ('empty', 'given', 'open'))
) STRICT;

-- A whole execution, in the order in which rows.py reads it.
CREATE VIEW execution_records AS
SELECT
    e.number, e.id, m.organization_id, m.id AS machine_id, e.state, r.command, r.cwd, r.env_keys, r.stdin_mode,
    r.timeout_ms, e.created_at, e.start_by, e.started_at, e.completed_at, e.exit_code, e.signal, e.error_code,
    e.error_message, e.stdout_bytes, e.stderr_bytes, e.stdout_kept, e.stderr_kept, e.last_sequence, e.boot_id,
    e.fence, e.cancel_requested_at, e.stdin_offset, e.stdin_eof
FROM executions e
JOIN machines m ON m.number = e.machine
JOIN requests r ON r.execution = e.number;

CREATE TABLE log (
    execution INTEGER NOT NULL REFERENCES executions,
    sequence INTEGER NOT NULL CHECK (sequence > 0),
    at INTEGER NOT NULL,
    state TEXT,
    stream INTEGER,
    "offset" INTEGER,
    data BLOB,
    exit_code INTEGER,
    signal INTEGER,
    error_code TEXT,
    error_message TEXT,
    PRIMARY KEY (execution, sequence),
    -- An entry is a piece of output or a change of state.
    CONSTRAINT log_output CHECK (
        CASE WHEN stream IS NULL THEN "offset" IS NULL AND data IS NULL
        ELSE state IS NULL AND stream IN (1, 2) AND "offset" >= 0 AND length(data) > 0 END
    ),
    CONSTRAINT log_state CHECK (stream IS NOT NULL OR CASE state
        WHEN 'wake_in_progress' THEN error_code IS NULL
        WHEN 'queued' THEN error_code IS NULL
        WHEN 'running' THEN error_code IS NULL
        WHEN 'succeeded' THEN exit_code IS 0 AND error_code IS NULL
        WHEN 'failed' THEN error_code IS NOT NULL
        WHEN 'cancelled' THEN error_code IS NOT NULL
        WHEN 'expired' THEN error_code IS NOT NULL
        ELSE FALSE
    END)
) WITHOUT ROWID, STRICT;

CREATE UNIQUE INDEX log_output ON log (execution, stream, "offset") WHERE stream IS NOT NULL;

CREATE TABLE secrets (
    execution INTEGER NOT NULL REFERENCES executions,
    kind TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (execution, kind, "offset"),
    CONSTRAINT secret_kind CHECK (kind IN ('env', 'stdin'))
) WITHOUT ROWID, STRICT;

CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    keep_until INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID, STRICT;

CREATE INDEX idempotency_expiry ON idempotency (keep_until);
