-- Jobs, their tags and their messages.

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,     -- the order of insertion
    id TEXT NOT NULL UNIQUE,
    key TEXT,
    submission TEXT NOT NULL,    -- marks the call that stored it
    executor TEXT NOT NULL,      -- '' while a held job has none
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    ticket INTEGER NOT NULL,     -- its place among the ready ones
    attempt INTEGER NOT NULL DEFAULT 0,
    plan TEXT NOT NULL,          -- JSON: the rest of how to run it
    payload TEXT,                -- JSON, as all values are; NULL where it is in the table "asides"
    metadata TEXT,
    tags TEXT,
    created_at REAL NOT NULL,    -- times called *_at, due and expires: wall time in seconds
    run_at REAL,
    delay REAL NOT NULL,
    expires_in REAL,
    due REAL NOT NULL,
    expires REAL,
    started_at REAL,
    finished_at REAL,
    worker TEXT,
    claim TEXT,                  -- the claim that holds it, or last held it; NULL once lost
    session TEXT,                -- the opened store that claimed it: a name in the folder of doorbells
    lease REAL NOT NULL DEFAULT 0,        -- seconds
    lease_until REAL NOT NULL DEFAULT 0,  -- by the machine's monotonic clock
    losses INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    cancel TEXT,                 -- JSON: when, why, and with how many seconds of grace it was asked to stop
    error TEXT,                  -- JSON
    result TEXT,
    saved_state TEXT,
    history TEXT NOT NULL DEFAULT '[]',   -- JSON, flat: when, state, attempt, worker, reason of each change
    asides INTEGER NOT NULL DEFAULT 0     -- how many of its values are in the table "asides"
);

CREATE UNIQUE INDEX jobs_key ON jobs (key) WHERE key IS NOT NULL;

-- Finding and counting.
CREATE INDEX jobs_cells ON jobs (queue, executor, state, seq);

-- Claiming: a line for each queue and executor.
CREATE INDEX jobs_ready ON jobs (queue, executor, priority DESC, ticket) WHERE state = 'QUEUED' AND executor > '';

-- What falls due.
CREATE INDEX jobs_due ON jobs (due) WHERE state IN ('SCHEDULED', 'RETRYING');
CREATE INDEX jobs_expiry ON jobs (expires) WHERE state = 'QUEUED' AND attempt = 0 AND expires IS NOT NULL;
CREATE INDEX jobs_running ON jobs (session, claim) WHERE state = 'RUNNING';

-- Pruning.
CREATE INDEX jobs_ended ON jobs (finished_at, seq) WHERE finished_at IS NOT NULL;

-- Values too large to be copied at every change of their job.
CREATE TABLE asides (
    job INTEGER NOT NULL,
    name TEXT NOT NULL,          -- the column that it belongs to
    value TEXT NOT NULL,
    PRIMARY KEY (job, name)
);

CREATE TABLE tags (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    job INTEGER NOT NULL,
    PRIMARY KEY (name, value, job)
) WITHOUT ROWID;

-- The streams, in chunks of consecutive messages.
CREATE TABLE messages (
    job INTEGER NOT NULL,
    first INTEGER NOT NULL,      -- the numbers of its first and last message
    last INTEGER NOT NULL,
    body TEXT NOT NULL,          -- JSON
    PRIMARY KEY (job, first)
) WITHOUT ROWID;

-- The last number given to a job or to a place among the ready ones.
CREATE TABLE numbers (last INTEGER NOT NULL);
INSERT INTO numbers VALUES (0);
