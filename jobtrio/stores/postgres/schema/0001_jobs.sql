-- oldest: 1
-- Jobs, their tags and their messages, and the workers that are there. {schema} stands for the schema's name.
--
-- Texts compare by their bytes: quicker than by a language's rules, and no index depends on the system's collations.
-- Times are seconds since 1970 by the server's clock. Values are JSON, kept as text: jsonb knows no \u0000.

CREATE TABLE {schema}.meta (
    key text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- Numbers of insertions, and of places among the ready ones.
CREATE SEQUENCE {schema}.numbers;

CREATE TABLE {schema}.jobs (
    seq bigint PRIMARY KEY,              -- the order of insertion
    ticket bigint NOT NULL,              -- its place among the ready ones
    created_at double precision NOT NULL,
    run_at double precision,
    delay double precision NOT NULL,
    expires_in double precision,
    due double precision NOT NULL,
    expires double precision,
    started_at double precision,
    finished_at double precision,
    lease_until double precision NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    losses integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    priority smallint NOT NULL,
    state text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    executor text COLLATE "C" NOT NULL,  -- '' while a held job has none
    id text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    submission text NOT NULL,            -- marks the call that stored it
    plan text NOT NULL,                  -- the rest of how to run it
    worker text,
    claim text COLLATE "C",              -- the claim that holds it, or last held it; NULL once lost
    session text COLLATE "C",            -- the opened store that claimed it
    payload text,
    metadata text,
    tags text,
    cancel text,                         -- when, why, and with how many seconds of grace it was asked to stop
    error text,
    result text,
    saved_state text,
    history text NOT NULL DEFAULT ''     -- a comma and: when, state, attempt, worker, reason; for each change
) WITH (
    -- Rows change twice or thrice and go: room for that in their pages, and frequent cleaning.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);

CREATE UNIQUE INDEX jobs_id ON {schema}.jobs (id);
CREATE UNIQUE INDEX jobs_key ON {schema}.jobs (key) WHERE key IS NOT NULL;

-- Finding and counting.
CREATE INDEX jobs_cells ON {schema}.jobs (queue, state, executor, seq);

-- Claiming: a line for each queue and executor.
CREATE INDEX jobs_ready ON {schema}.jobs (queue, executor, priority DESC, ticket)
    WHERE state = 'QUEUED' AND executor > '';

-- What falls due.
CREATE INDEX jobs_due ON {schema}.jobs (due) WHERE state IN ('SCHEDULED', 'RETRYING');
CREATE INDEX jobs_expiry ON {schema}.jobs (expires) WHERE state = 'QUEUED' AND attempt = 0 AND expires IS NOT NULL;

-- What runs. The end of the lease is not in it, so that a renewal touches no index.
CREATE INDEX jobs_running ON {schema}.jobs (session, claim) WHERE state = 'RUNNING';

-- Pruning.
CREATE INDEX jobs_ended ON {schema}.jobs (finished_at, seq) WHERE finished_at IS NOT NULL;

CREATE TABLE {schema}.tags (
    job bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, value, job)
);

-- The streams, in chunks of consecutive messages.
CREATE TABLE {schema}.messages (
    job bigint NOT NULL,
    first bigint NOT NULL,               -- the numbers of its first and last message
    last bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (job, first)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.1
);

-- The opened stores, each as often as it renews its leases.
CREATE TABLE {schema}.workers (
    session text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    started_at double precision NOT NULL,
    seen_at double precision NOT NULL,
    until double precision NOT NULL      -- when it counts as gone unless it was seen again
) WITH (fillfactor = 50);
