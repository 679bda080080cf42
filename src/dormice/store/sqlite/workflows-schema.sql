-- The tables of the workflow surface. They came after the first release, and are made at every open if they are missing.
--
-- An organization owns projects; a project has deployments (what workers offer), queues, workers, runs and events. A run is one row of
-- `runs` that changes as it goes on, one row of `run_inputs` that never changes, one row of `run_results` at its end, its `steps`, and its `waits`
-- for as long as it waits. JSON documents are kept as they came.

CREATE TABLE IF NOT EXISTS projects (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations,
    name TEXT NOT NULL,
    description TEXT,
    is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE UNIQUE INDEX IF NOT EXISTS projects_default ON projects (organization_id) WHERE is_default;

-- A key that has a row here may use that project and nothing else. The row goes when the key is revoked, and its name is free again.
CREATE TABLE IF NOT EXISTS project_keys (
    key_id TEXT PRIMARY KEY REFERENCES keys (id),
    project_id TEXT NOT NULL REFERENCES projects,
    name TEXT NOT NULL,
    last_four TEXT NOT NULL,
    UNIQUE (project_id, name)
) WITHOUT ROWID, STRICT;

-- When a project's key was last used, as far as that is kept: not more than once a minute.
CREATE TABLE IF NOT EXISTS project_key_uses (
    key_id TEXT PRIMARY KEY REFERENCES project_keys ON DELETE CASCADE,
    used_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE IF NOT EXISTS deployments (
    project_id TEXT NOT NULL REFERENCES projects,
    id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deployed_at INTEGER NOT NULL,
    PRIMARY KEY (project_id, id)
) WITHOUT ROWID, STRICT;

-- What a deployment offers: workflows, agents and tools by kind and id. `spec` is what was registered besides.
CREATE TABLE IF NOT EXISTS definitions (
    project_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    trigger_on_event INTEGER NOT NULL CHECK (trigger_on_event IN (0, 1)),
    scheduled INTEGER NOT NULL CHECK (scheduled IN (0, 1)),
    spec BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project_id, deployment_id, kind, id),
    FOREIGN KEY (project_id, deployment_id) REFERENCES deployments (project_id, id),
    CONSTRAINT definition_kind CHECK (kind IN ('workflow', 'agent', 'tool', 'agent_spec', 'tool_spec'))
) WITHOUT ROWID, STRICT;

CREATE TABLE IF NOT EXISTS queues (
    project_id TEXT NOT NULL REFERENCES projects,
    deployment_id TEXT NOT NULL,
    name TEXT NOT NULL,
    concurrency_limit INTEGER CHECK (concurrency_limit >= 0),
    PRIMARY KEY (project_id, deployment_id, name)
) WITHOUT ROWID, STRICT;

CREATE TABLE IF NOT EXISTS workers (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects,
    deployment_id TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('push', 'pull')),
    url TEXT,
    max_concurrent INTEGER NOT NULL CHECK (max_concurrent > 0),
    capabilities BLOB NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- What starts runs by itself. A tick of a schedule, and what became of it, is kept for a while; one whose run is open, for as long as that is.
CREATE TABLE IF NOT EXISTS schedules (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects,
    workflow_id TEXT NOT NULL,
    key TEXT NOT NULL,
    cron TEXT NOT NULL,
    timezone TEXT NOT NULL,
    catch_up TEXT NOT NULL CONSTRAINT schedule_catch_up CHECK (catch_up IN ('none', 'one', 'all')),
    overlap INTEGER NOT NULL CHECK (overlap IN (0, 1)),
    status TEXT NOT NULL CONSTRAINT schedule_status CHECK (status IN ('active', 'paused')),
    revision INTEGER NOT NULL CHECK (revision > 0),
    next_run_at INTEGER,
    last_run_at INTEGER,
    last_skipped_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (project_id, workflow_id, key)
) WITHOUT ROWID, STRICT;

CREATE TABLE IF NOT EXISTS schedule_ticks (
    schedule_id TEXT NOT NULL REFERENCES schedules ON DELETE CASCADE,
    at INTEGER NOT NULL,
    outcome TEXT NOT NULL CONSTRAINT tick_outcome CHECK (outcome IN ('run', 'skipped', 'missed', 'unserved')),
    run_id TEXT,
    open INTEGER NOT NULL CHECK (open IN (0, 1)),
    decided_at INTEGER NOT NULL,
    PRIMARY KEY (schedule_id, at),
    CONSTRAINT tick_run CHECK ((run_id IS NOT NULL) = (outcome IN ('run', 'skipped')) AND (NOT open OR outcome = 'run'))
) WITHOUT ROWID, STRICT;

CREATE INDEX IF NOT EXISTS schedule_ticks_open ON schedule_ticks (schedule_id) WHERE open;

-- `cursor` is the sequence of the last event that a run was made for.
CREATE TABLE IF NOT EXISTS event_triggers (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects,
    workflow_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    queue_name TEXT NOT NULL,
    batch_size INTEGER NOT NULL CHECK (batch_size > 0),
    batch_timeout_seconds INTEGER CHECK (batch_timeout_seconds > 0),
    revision INTEGER NOT NULL CHECK (revision > 0),
    cursor INTEGER NOT NULL CHECK (cursor >= 0),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (project_id, workflow_id, topic)
) WITHOUT ROWID, STRICT;

CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project_id TEXT NOT NULL REFERENCES projects,
    workflow_id TEXT NOT NULL,
    state TEXT NOT NULL,
    revision INTEGER NOT NULL CHECK (revision > 0),
    created_at INTEGER NOT NULL,
    deployment_id TEXT NOT NULL,
    queue_name TEXT NOT NULL,
    concurrency_key TEXT,
    priority INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    started_at INTEGER,
    running_since INTEGER,
    completed_at INTEGER,
    worker_id TEXT,
    fence INTEGER NOT NULL CHECK (fence >= 0),
    parent_id TEXT,
    root_id TEXT,
    root_workflow_id TEXT,
    step_key TEXT,
    batch_id TEXT,
    session_id TEXT,
    user_id TEXT,
    retry_count INTEGER NOT NULL CHECK (retry_count >= 0),
    max_retries INTEGER NOT NULL CHECK (max_retries >= 0),
    crashes INTEGER NOT NULL CHECK (crashes >= 0),
    error TEXT,
    cancelled_at INTEGER,
    cancelled_by TEXT CHECK (cancelled_by IN ('manual', 'timeout')),
    run_timeout_seconds INTEGER CHECK (run_timeout_seconds > 0),
    CONSTRAINT run_state CHECK (CASE state
        WHEN 'queued' THEN completed_at IS NULL AND cancelled_at IS NULL
        WHEN 'claimed' THEN completed_at IS NULL AND cancelled_at IS NULL AND worker_id IS NOT NULL AND fence > 0
        WHEN 'running' THEN completed_at IS NULL AND cancelled_at IS NULL AND worker_id IS NOT NULL AND fence > 0
            AND started_at IS NOT NULL AND running_since IS NOT NULL
        WHEN 'waiting' THEN completed_at IS NULL AND cancelled_at IS NULL AND fence > 0
        WHEN 'pending_cancel' THEN completed_at IS NULL AND cancelled_at IS NOT NULL
        WHEN 'completed' THEN completed_at IS NOT NULL AND error IS NULL
        WHEN 'failed' THEN completed_at IS NOT NULL AND error IS NOT NULL
        WHEN 'cancelled' THEN completed_at IS NOT NULL AND cancelled_at IS NOT NULL
        ELSE FALSE
    END)
) STRICT;

CREATE INDEX IF NOT EXISTS runs_open ON runs (number) WHERE completed_at IS NULL;
CREATE INDEX IF NOT EXISTS runs_open_of_root ON runs (root_id) WHERE completed_at IS NULL AND root_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_ended ON runs (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_of ON runs (project_id, number);
CREATE INDEX IF NOT EXISTS runs_of_workflow ON runs (project_id, workflow_id, number);
CREATE INDEX IF NOT EXISTS runs_below ON runs (parent_id, step_key) WHERE parent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_of_batch ON runs (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_under ON runs (parent_id, number) WHERE parent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_of_session ON runs (project_id, session_id, number) WHERE session_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_of_user ON runs (project_id, user_id, number) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_of_queue ON runs (project_id, queue_name, number) WHERE queue_name <> workflow_id;
CREATE INDEX IF NOT EXISTS runs_ended_in ON runs (project_id, state, number) WHERE completed_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS run_inputs (
    run INTEGER PRIMARY KEY REFERENCES runs,
    payload BLOB NOT NULL,
    initial_state BLOB,
    channel_context BLOB,
    traceparent TEXT
) STRICT;

CREATE TABLE IF NOT EXISTS run_results (
    run INTEGER PRIMARY KEY REFERENCES runs,
    result BLOB,
    output_schema_name TEXT,
    final_state BLOB
) STRICT;

CREATE TABLE IF NOT EXISTS run_spans (
    run INTEGER PRIMARY KEY REFERENCES runs,
    span_id TEXT
) STRICT;

CREATE TABLE IF NOT EXISTS steps (
    run INTEGER NOT NULL REFERENCES runs,
    step_key TEXT NOT NULL,
    outputs BLOB NOT NULL,
    error BLOB,
    success INTEGER NOT NULL CHECK (success IN (0, 1)),
    source_run_id TEXT,
    output_schema_name TEXT,
    completed_at INTEGER NOT NULL,
    PRIMARY KEY (run, step_key)
) WITHOUT ROWID, STRICT;

-- `due_at` ends a wait for time, and any other one with an error. `remaining` counts the runs of a batch that have not ended; `batch` names them in
-- their order. Of waits that are `together`, only the last one to end lets the run go on; they are counted up in `created_at` from the moment at
-- which they began, as an event of a topic is for the first of them.
CREATE TABLE IF NOT EXISTS waits (
    run INTEGER NOT NULL REFERENCES runs,
    step_key TEXT NOT NULL,
    kind TEXT NOT NULL,
    due_at INTEGER,
    topic TEXT,
    event_type TEXT,
    remaining INTEGER CHECK (remaining >= 0),
    batch BLOB,
    created_at INTEGER NOT NULL,
    together INTEGER NOT NULL DEFAULT 0 CHECK (together IN (0, 1)),
    PRIMARY KEY (run, step_key),
    CONSTRAINT wait_kind CHECK (CASE kind
        WHEN 'time' THEN due_at IS NOT NULL
        WHEN 'event' THEN topic IS NOT NULL
        WHEN 'suspend' THEN topic IS NOT NULL AND event_type IS NOT NULL
        WHEN 'subworkflow' THEN TRUE
        WHEN 'batch' THEN remaining IS NOT NULL AND batch IS NOT NULL
        WHEN 'execution' THEN TRUE
        ELSE FALSE
    END)
) WITHOUT ROWID, STRICT;

CREATE INDEX IF NOT EXISTS waits_due ON waits (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS waits_for ON waits (topic) WHERE topic IS NOT NULL;

CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    project_id TEXT NOT NULL REFERENCES projects,
    topic TEXT NOT NULL,
    event_type TEXT,
    data BLOB NOT NULL,
    run_id TEXT,
    attempt_number INTEGER,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS events_of ON events (project_id, topic, sequence);
CREATE INDEX IF NOT EXISTS events_old ON events (created_at);
CREATE INDEX IF NOT EXISTS events_of_suspensions ON events (project_id, topic, event_type, sequence)
    WHERE substr(event_type, 1, 7) IN ('suspend', 'resume_');

-- Events that are for one suspended run alone: answers to what that run asks. Other ones with the same step key wait on.
CREATE TABLE IF NOT EXISTS addressed_events (
    sequence INTEGER PRIMARY KEY REFERENCES events ON DELETE CASCADE,
    run_id TEXT NOT NULL
) STRICT;

-- The last event of a topic that a wait of a run was given: the next wait on it is given a later one.
CREATE TABLE IF NOT EXISTS wait_cursors (
    run INTEGER NOT NULL REFERENCES runs,
    topic TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (run, topic)
) WITHOUT ROWID, STRICT;

-- Commands on machines that are steps of runs: one for each step, for as long as the run is there.
CREATE TABLE IF NOT EXISTS run_commands (
    run INTEGER NOT NULL REFERENCES runs,
    step_key TEXT NOT NULL,
    execution_id TEXT NOT NULL UNIQUE,
    open INTEGER NOT NULL CHECK (open IN (0, 1)),
    PRIMARY KEY (run, step_key)
) WITHOUT ROWID, STRICT;

CREATE INDEX IF NOT EXISTS run_commands_open ON run_commands (run) WHERE open;

-- What workers report of their work, by root run. A trace has one root span for each time that a worker had the run: it is listed by the first,
-- and what came of it is the last one's.
CREATE TABLE IF NOT EXISTS traces (
    number INTEGER PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects,
    trace_id TEXT NOT NULL,
    first_span TEXT,
    last_span TEXT,
    root_span_type TEXT,
    root_span_name TEXT,
    started_at INTEGER,
    last_started_at INTEGER,
    reported_at INTEGER NOT NULL,
    has_error INTEGER NOT NULL CHECK (has_error IN (0, 1)),
    UNIQUE (project_id, trace_id)
) STRICT;

CREATE INDEX IF NOT EXISTS traces_old ON traces (reported_at);
CREATE INDEX IF NOT EXISTS traces_of ON traces (project_id, started_at)
    WHERE root_span_type IN ('workflow', 'agent', 'tool');
CREATE INDEX IF NOT EXISTS traces_of_type ON traces (project_id, root_span_type, started_at);
CREATE INDEX IF NOT EXISTS traces_of_name ON traces (project_id, root_span_name, started_at);
CREATE INDEX IF NOT EXISTS traces_failed ON traces (project_id, started_at)
    WHERE has_error = 1 AND root_span_type IN ('workflow', 'agent', 'tool');

-- `document` has all that nobody searches for, as one JSON object.
CREATE TABLE IF NOT EXISTS spans (
    trace INTEGER NOT NULL REFERENCES traces,
    span_id TEXT NOT NULL,
    parent_span_id TEXT,
    name TEXT NOT NULL,
    span_type TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    document BLOB NOT NULL,
    PRIMARY KEY (trace, span_id)
) STRICT;

CREATE INDEX IF NOT EXISTS spans_of ON spans (trace, started_at, span_id);

-- What an agent remembers of a session, and what was said in a conversation.
CREATE TABLE IF NOT EXISTS session_memories (
    project_id TEXT NOT NULL REFERENCES projects,
    session_id TEXT NOT NULL,
    summary TEXT,
    messages BLOB NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project_id, session_id)
) STRICT;

CREATE INDEX IF NOT EXISTS session_memories_old ON session_memories (updated_at);

CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    project_id TEXT NOT NULL REFERENCES projects,
    conversation_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    role TEXT NOT NULL,
    content BLOB NOT NULL,
    agent_run_id TEXT,
    deployment_id TEXT,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS messages_old ON messages (created_at);
CREATE INDEX IF NOT EXISTS messages_of ON messages (project_id, conversation_id, agent_id, number);
