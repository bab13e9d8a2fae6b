-- The statements, by name. What stands in braces is put in as the statements are read:
--   {schema}  the schema's name              {clock} a CTE "clock" of the server's time, as numeric "n" and float "at"
--   {now}     that time, of this very moment {asked} that of the statement's beginning, which an index can be asked for
--   {placed} and {tagged} the parts of an insertion
--   {entry}   the columns of a whole entry   {light} the same without what users gave   {nothing} as many NULLs
--   {entry when whole} and {light when whole} these, but of a job that is not "whole" the id alone
--   {held by given} whether a claim holds the job, in a form that no index but that of the numbers is chosen for
--   {stands in line} that a job is ready in a line, and its order there
--   {has id in 2} that a job's id is in parameter 2, in a form that hides from the planner whether that is empty: what no row
--             can meet implies the condition of each index, so one that has nothing to do with ids might be walked over
--   {size}    how many bytes a job has              {light size} the same without what users gave
--   {first of …} as many as there may be, of what a condition finds
--   {in order} how many rows there are, "many", and how many bytes those before each have, "before"
--   {told n m} the sending of a notice: the channel is parameter n, the payloads are m
--   {by pattern n m} the number, of those in m, that belongs to the longest in n of what the queue's name begins with
-- Parameters that are lists come as array literals, so every parameter says its type.
-- Where a list is joined, its values are a condition as well (= ANY): by a plan from when the tables were empty, as far as
-- the server knew, the join alone may walk over all rows. What workers do most goes without, where that is quicker.

-- Jobs that are to be stored, and their tags; then the channel and the payloads of what others are told of it. What is in
-- use already is passed over.
-- name: insert
WITH {clock}, {placed}
    ON CONFLICT DO NOTHING
    RETURNING id, seq, created_at, due, expires
), {tagged}
SELECT placed.*, {told 18 19} FROM placed;

-- The same, all or none.
-- name: insert_all
WITH {clock}, {placed}
    RETURNING id, seq, created_at, due, expires
), {tagged}
SELECT placed.*, {told 18 19} FROM placed;

-- Takes numbers as long as there are jobs that have higher ones, some at a time, and says how many: a sequence that was not
-- restored, or not replicated, with its tables gives those out again. Many may do so at once, each a part of it.
-- name: catch_up
SELECT count(nextval('{schema}.numbers')) FROM (
    SELECT generate_series(last + 1, least(last + 100000, (SELECT coalesce(max(seq), 0) FROM {schema}.jobs)))
    FROM (SELECT coalesce(pg_sequence_last_value('{schema}.numbers'), 0) AS last) AS sequence
) AS behind;

-- name: by_ids
SELECT {entry} FROM {schema}.jobs AS job WHERE id = ANY($1::text[]);

-- The same, but of those behind so many bytes, $2, in the order in which they are named, nothing but the id; and whether
-- there is more.
-- name: some_by_ids
SELECT {entry when whole}, job.whole FROM (
    SELECT job.*, sum({size}) OVER (ORDER BY given.place ROWS UNBOUNDED PRECEDING) - {size} < $2::bigint AS whole
    FROM unnest($1::text[]) WITH ORDINALITY AS given (id, place)
    JOIN {schema}.jobs AS job ON job.id = given.id AND job.id = ANY($1::text[])
) AS job;

-- name: by_keys
SELECT {entry} FROM {schema}.jobs AS job WHERE key = ANY($1::text[]);

-- Has the commit wait until the synchronous standbys, if there are any, have all that this transaction has seen: a commit
-- that was cut off while it waited for them stands, and is seen. Without something written no commit waits.
-- name: confirm
SELECT CASE WHEN current_setting('synchronous_standby_names') <> ''
    THEN pg_logical_emit_message(true, 'jobtrio', ''::text) END;

-- name: some_light_by_ids
SELECT {light when whole}, job.whole FROM (
    SELECT job.*, sum({light size}) OVER (ORDER BY given.place ROWS UNBOUNDED PRECEDING) - {light size} < $2::bigint AS whole
    FROM unnest($1::text[]) WITH ORDINALITY AS given (id, place)
    JOIN {schema}.jobs AS job ON job.id = given.id AND job.id = ANY($1::text[])
) AS job;

-- Claiming. The heads of lines are found by leaps; of each line as many jobs are taken as belong to the first of all, and
-- no more than $14 bytes of what users gave, but for the first. Where there are more queues than jobs are wanted, only
-- those whose first jobs come first, one for each job, can have some of the first of all. Where others had locked some of
-- these, and there may be more that were not among the first, or where some were too large, a row of NULLs says so.
-- name: claim
WITH RECURSIVE {clock},
kept AS MATERIALIZED (
    SELECT seq FROM {schema}.jobs WHERE state = 'RUNNING' AND session = $2 AND claim = $1
),
heads AS (
    (
        SELECT queue, executor FROM {schema}.jobs
        WHERE state = 'QUEUED' AND executor > '' AND NOT EXISTS (SELECT FROM kept)
        ORDER BY queue, executor LIMIT 1
    )
    UNION ALL
    SELECT next.queue, next.executor FROM heads CROSS JOIN LATERAL (
        SELECT queue, executor FROM {schema}.jobs
        WHERE state = 'QUEUED' AND executor > '' AND (queue, executor) > (heads.queue, heads.executor)
        ORDER BY queue, executor LIMIT 1
    ) AS next
),
wanted AS MATERIALIZED (
    SELECT
        head.*,
        -- From when on starts are counted, one for each interval; what lies too far ahead was set by another clock or limit.
        CASE WHEN every IS NOT NULL THEN (
            SELECT CASE
                WHEN max(next_at) > clock.at + every + {rounded} THEN clock.at
                ELSE greatest(max(next_at), clock.at - reach)
            END
            FROM {schema}.rates WHERE queue = head.queue
        ) END AS base
    FROM clock CROSS JOIN (
        SELECT
            head.queue, head.executor,
            coalesce(room.most, {by pattern 15 16 integer}) AS room, coalesce(total.most, {by pattern 17 18 integer}) AS total,
            coalesce(rate.every, {by pattern 22 23 float8}) AS every, coalesce(rate.reach, {by pattern 22 24 float8}) AS reach
        FROM heads AS head
        LEFT JOIN unnest($7::text[], $8::integer[]) AS room (queue, most) ON room.queue = head.queue
        LEFT JOIN unnest($10::text[], $11::integer[]) AS total (queue, most) ON total.queue = head.queue
        LEFT JOIN unnest($19::text[], $20::float8[], $21::float8[]) AS rate (queue, every, reach)
            ON rate.queue = head.queue
        WHERE ($9::text[] IS NULL OR head.executor = ANY($9::text[]))
            AND NOT EXISTS (
                SELECT FROM {schema}.paused WHERE queue = head.queue AND until > (SELECT at FROM clock)
            )
    ) AS head
    WHERE $7::text[] IS NULL OR room > 0
),
lines AS MATERIALIZED (
    SELECT
        queue, executor, base, every,
        least(
            $6::integer, room,
            CASE WHEN total IS NOT NULL THEN total - (
                -- As a range, for the index by queue and state: that of all running jobs is the smaller one, and walks
                -- over all.
                SELECT count(*) FROM {schema}.jobs WHERE queue = head.queue AND state >= 'RUNNING' AND state <= 'RUNNING'
            ) END,
            CASE WHEN every IS NOT NULL THEN floor((clock.at + {rounded} - base) / every)::integer + 1 END
        ) AS room
    FROM wanted AS head CROSS JOIN clock
),
near AS (
    SELECT queue FROM (
        SELECT DISTINCT ON (line.queue) line.queue, job.priority, job.ticket
        FROM lines AS line CROSS JOIN clock CROSS JOIN LATERAL (
            SELECT priority, ticket FROM {schema}.jobs WHERE {stands in line} LIMIT 1
        ) AS job
        WHERE line.room > 0 ORDER BY line.queue, job.priority DESC, job.ticket
    ) AS first
    ORDER BY priority DESC, ticket LIMIT $6::integer
),
ranked AS (
    SELECT
        line.queue, line.executor, line.room, job.priority, job.ticket,
        row_number() OVER (PARTITION BY line.queue ORDER BY job.priority DESC, job.ticket) AS place
    FROM lines AS line CROSS JOIN clock CROSS JOIN LATERAL (
        SELECT priority, ticket FROM {schema}.jobs WHERE {stands in line} LIMIT greatest(line.room, 0)
    ) AS job
    WHERE (SELECT count(DISTINCT queue) FROM lines) <= $6::integer OR line.queue IN (SELECT queue FROM near)
),
shares AS MATERIALIZED (
    SELECT queue, executor, count(*) AS many, min(room) AS room
    FROM (
        SELECT queue, executor, room FROM ranked WHERE place <= room ORDER BY priority DESC, ticket LIMIT $6::integer
    ) AS first
    GROUP BY queue, executor
),
picked AS MATERIALIZED (
    SELECT job.* FROM shares AS line CROSS JOIN clock CROSS JOIN LATERAL (
        SELECT seq, priority, ticket, {size} AS size FROM {schema}.jobs AS job
        WHERE {stands in line} LIMIT line.many FOR UPDATE SKIP LOCKED
    ) AS job
),
fitting AS MATERIALIZED (
    SELECT seq, sum(size) OVER (ORDER BY priority DESC, ticket ROWS UNBOUNDED PRECEDING) - size < $14::bigint AS fits
    FROM picked
),
started AS (
    UPDATE {schema}.jobs AS job SET
        state = 'RUNNING', attempt = attempt + 1, claim = $1, session = $2, worker = $3, started_at = clock.at,
        lease_until = clock.at + $5::float8,
        history = history || ',' || clock.n::text || ',"RUNNING",' || (attempt + 1)::text || $4
    -- As an array: of a limit that is a parameter the planner thinks that it may be a tenth of all, and would read all.
    FROM clock WHERE job.seq = ANY(ARRAY(SELECT seq FROM fitting WHERE fits))
    RETURNING {entry}, clock.at
),
counted AS (
    INSERT INTO {schema}.rates AS rate (queue, next_at)
    SELECT line.queue, line.base + started.many * line.every
    FROM (SELECT queue, count(*) AS many FROM started GROUP BY queue) AS started
    JOIN (SELECT DISTINCT queue, base, every FROM lines WHERE every IS NOT NULL) AS line ON line.queue = started.queue
    ON CONFLICT (queue) DO UPDATE SET next_at = EXCLUDED.next_at
)
SELECT started.*, {told 12 13} FROM started
UNION ALL
SELECT {entry}, clock.at, 0 FROM kept CROSS JOIN clock JOIN {schema}.jobs AS job ON job.seq = kept.seq
UNION ALL
SELECT {nothing}, NULL, 0
FROM (SELECT sum(many)::bigint AS many, min(room) AS room FROM shares GROUP BY queue) AS chosen
HAVING sum(many)::bigint > (SELECT count(*) FROM picked) AND (sum(many)::bigint >= $6::integer OR bool_or(many >= room))
    OR EXISTS (SELECT FROM fitting WHERE NOT fits);

-- Queues that have jobs ready and could not start one at the moment $1, and how far it is to when they may.
-- name: next_starts
SELECT queue, next_at - {now} FROM {schema}.rates AS rate
WHERE next_at > $1::float8
    AND NOT EXISTS (SELECT FROM {schema}.paused WHERE queue = rate.queue AND until > {asked})
    -- Looked up for each queue: it is not to be joined with all jobs.
    AND (
        SELECT true FROM {schema}.jobs WHERE queue = rate.queue AND state = 'QUEUED' AND executor > ''
        ORDER BY executor, priority DESC, ticket LIMIT 1
    )
ORDER BY next_at LIMIT 1000;

-- name: forget_rates
DELETE FROM {schema}.rates WHERE next_at < {now} - $1::float8;

-- How long a transaction may stand still, $1, and how long it may last in all, $2, where the server knows of that (17).
-- name: limit_transaction
SELECT
    set_config('idle_in_transaction_session_timeout', $1, true),
    CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL
        THEN set_config('transaction_timeout', $2, true) END;

-- name: limit_waits
SELECT set_config('lock_timeout', $1, true);

-- One lock behind the other, and the time behind each.
-- name: lock_names
SELECT pg_advisory_xact_lock(hashtextextended('{schema}:' || name, 0::bigint)), {now}
FROM (SELECT name FROM unnest($1::text[]) AS name ORDER BY name) AS sorted;

-- Renewing. A job that is locked is passed over: it is not to hold up the leases of all others. One that always sends is
-- locked most of the time, where commits take long, so those that were passed over are waited for afterwards, one by one.
-- name: renew
WITH {clock},
free AS MATERIALIZED (
    SELECT job.seq
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[]) AS given (seq, id, claim, attempt)
    JOIN {schema}.jobs AS job ON job.seq = given.seq
    WHERE {held by given}
    FOR NO KEY UPDATE OF job SKIP LOCKED
)
UPDATE {schema}.jobs AS job SET lease_until = clock.at + $5::float8, session = $6
FROM clock CROSS JOIN free WHERE job.seq = free.seq
RETURNING job.seq, job.claim, job.lease_until, job.cancel;

-- name: wait_for
SELECT FROM {schema}.jobs WHERE seq = $1::bigint FOR NO KEY UPDATE;

-- name: by_seqs
SELECT {light} FROM {schema}.jobs AS job WHERE seq = ANY($1::bigint[]);

-- Completing, as most jobs end: $1 to $4 are the claims, $5 their results, $6 to $8 a chunk of messages each, or NULLs; $9
-- is how the history's line ends. Messages have to go on from what is stored.
-- name: complete
WITH {clock},
ended AS (
    UPDATE {schema}.jobs AS job SET
        state = 'COMPLETED', finished_at = greatest(clock.at, job.started_at), result = given.result,
        history = job.history || ',' || CASE WHEN clock.at < job.started_at THEN job.started_at::text ELSE clock.n::text END
            || ',"COMPLETED",' || job.attempt::text || $9
    FROM clock CROSS JOIN unnest(
        $1::bigint[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::bigint[], $7::bigint[], $8::text[]
    ) AS given (seq, id, claim, attempt, result, first, last, body)
    WHERE job.seq = given.seq AND {held by given} AND job.cancel IS NULL
        AND (given.first IS NULL OR given.first = 1 + coalesce(
            (SELECT last FROM {schema}.messages WHERE job = given.seq ORDER BY first DESC LIMIT 1), 0
        ))
    RETURNING job.seq, job.finished_at, given.first, given.last, given.body
),
chunks AS (
    INSERT INTO {schema}.messages (job, first, last, body)
    SELECT seq, first, last, body FROM ended WHERE first IS NOT NULL
)
SELECT seq, finished_at, {told 10 11} FROM ended;

-- Appending a chunk to each of some jobs, where it goes on from what is stored: $1 to $4 are the claims, $5 to $7 the chunks.
-- Of each job $8 messages are kept.
-- name: append
WITH held AS MATERIALIZED (
    SELECT given.*
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::text[])
        AS given (seq, id, claim, attempt, first, last, body)
    JOIN {schema}.jobs AS job ON job.seq = given.seq
    WHERE {held by given}
        AND given.first = 1 + coalesce(
            (SELECT last FROM {schema}.messages WHERE job = given.seq ORDER BY first DESC LIMIT 1), 0
        )
    FOR NO KEY UPDATE OF job
),
chunks AS (
    INSERT INTO {schema}.messages (job, first, last, body) SELECT seq, first, last, body FROM held
),
trimmed AS (
    DELETE FROM {schema}.messages AS old USING held
    WHERE old.job = held.seq AND old.first <= held.last - $8::bigint AND old.last <= held.last - $8::bigint
)
SELECT seq, {told 9 10} FROM held;

-- The jobs that are to be changed, locked in one order, so that nobody waits for somebody who waits for him. Those in
-- $1 are given without what users gave, those of $2 whole.
-- name: lock
SELECT {when whole}, {now}
FROM {schema}.jobs AS job CROSS JOIN LATERAL (SELECT job.id IN (SELECT unnest($2::text[])) AS whole) AS wanted
-- As an array: a join may be planned, while there are few jobs, that walks over all of them.
WHERE job.seq = ANY(ARRAY(SELECT unnest($1::bigint[]) UNION ALL SELECT seq FROM {schema}.jobs WHERE {has id in 2}))
ORDER BY job.seq FOR NO KEY UPDATE OF job;

-- What has fallen due, at most $1 of each kind and of $2 bytes; what others have locked is theirs to see to.
-- name: lock_due
SELECT {entry}, {now} FROM {schema}.jobs AS job
WHERE {first of state IN ('SCHEDULED', 'RETRYING') AND due <= {asked} ORDER BY due}
FOR NO KEY UPDATE SKIP LOCKED;

-- name: lock_expired
SELECT {entry}, {now} FROM {schema}.jobs AS job
WHERE {first of state = 'QUEUED' AND attempt = 0 AND expires IS NOT NULL AND expires <= {asked} ORDER BY expires}
FOR NO KEY UPDATE SKIP LOCKED;

-- name: lock_lapsed
SELECT {entry}, {now} FROM {schema}.jobs AS job
WHERE {first of state = 'RUNNING' AND lease_until <= {asked} ORDER BY lease_until, seq}
FOR NO KEY UPDATE SKIP LOCKED;

-- Pauses that are over; those that another process is about to end are left to it.
-- name: end_pauses
DELETE FROM {schema}.paused WHERE queue IN (
    SELECT queue FROM {schema}.paused WHERE until <= {asked} FOR UPDATE SKIP LOCKED
)
RETURNING queue;

-- name: next
SELECT
    {now},
    (SELECT due FROM {schema}.jobs WHERE state IN ('SCHEDULED', 'RETRYING') ORDER BY due LIMIT 1),
    (
        SELECT expires FROM {schema}.jobs
        WHERE state = 'QUEUED' AND attempt = 0 AND expires IS NOT NULL ORDER BY expires LIMIT 1
    ),
    (SELECT min(lease_until) FROM {schema}.jobs WHERE state = 'RUNNING'),
    (SELECT min(until) FROM {schema}.paused);

-- The numbers of the last messages of jobs, by the numbers in $1 and the ids in $2. Asked when they are locked, it sees what
-- others had appended before.
-- name: lasts
SELECT seq, (SELECT last FROM {schema}.messages WHERE job = seq ORDER BY first DESC LIMIT 1)
FROM (
    SELECT seq FROM unnest($1::bigint[]) AS seq
    UNION ALL
    SELECT seq FROM {schema}.jobs WHERE {has id in 2}
) AS named;

-- name: move
WITH given AS MATERIALIZED (
    SELECT
        seq, state, CASE WHEN is_ready THEN nextval('{schema}.numbers') ELSE ticket END AS ticket, claim, losses, failures,
        due, finished_at, cancel, error, result, history
    FROM unnest(
        $1::bigint[], $2::text[], $3::boolean[], $4::bigint[], $5::text[], $6::integer[], $7::integer[], $8::float8[],
        $9::float8[], $10::text[], $11::text[], $12::text[], $13::text[]
    ) AS moved (
        seq, state, is_ready, ticket, claim, losses, failures, due, finished_at, cancel, error, result, history
    )
)
UPDATE {schema}.jobs AS job SET
    state = given.state, ticket = given.ticket, claim = given.claim, losses = given.losses, failures = given.failures,
    due = given.due, finished_at = given.finished_at, cancel = given.cancel, error = given.error,
    result = given.result, history = given.history
FROM given WHERE job.seq = given.seq AND job.seq = ANY($1::bigint[])
RETURNING job.seq, job.ticket;

-- name: ask_to_cancel
UPDATE {schema}.jobs AS job SET cancel = given.cancel
FROM unnest($1::bigint[], $2::text[]) AS given (seq, cancel)
WHERE job.seq = given.seq AND job.seq = ANY($1::bigint[]);

-- name: keep_state
UPDATE {schema}.jobs AS job SET saved_state = given.saved_state
FROM unnest($1::bigint[], $2::text[]) AS given (seq, saved_state)
WHERE job.seq = given.seq AND job.seq = ANY($1::bigint[]);

-- name: replan
UPDATE {schema}.jobs SET
    executor = $2, queue = $3, priority = $4::smallint, plan = $5, expires = $6::float8,
    ticket = CASE WHEN state = 'QUEUED' THEN nextval('{schema}.numbers') ELSE ticket END
WHERE seq = $1::bigint
RETURNING ticket;

-- Jobs that wait are given priorities, each with a place behind all that are ready.
-- name: prioritize
WITH given AS MATERIALIZED (
    SELECT seq, priority, nextval('{schema}.numbers') AS ticket
    FROM unnest($1::bigint[], $2::smallint[]) AS prioritized (seq, priority)
)
UPDATE {schema}.jobs AS job SET priority = given.priority, ticket = given.ticket
FROM given WHERE job.seq = given.seq AND job.seq = ANY($1::bigint[])
RETURNING job.seq, job.ticket;

-- name: insert_chunks
INSERT INTO {schema}.messages (job, first, last, body)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]);

-- Chunks of which all messages are too old: $2 are the last of these for each job in $1.
-- name: trim_chunks
DELETE FROM {schema}.messages AS chunk USING unnest($1::bigint[], $2::bigint[]) AS given (job, last)
WHERE chunk.job = given.job AND chunk.job = ANY($1::bigint[]) AND chunk.first <= given.last AND chunk.last <= given.last;

-- name: drop_chunks
DELETE FROM {schema}.messages WHERE ctid = ANY(ARRAY(
    SELECT chunk.ctid FROM unnest($1::bigint[]) AS given (job) CROSS JOIN LATERAL (
        SELECT ctid FROM {schema}.messages WHERE job = given.job ORDER BY first LIMIT $2::integer
    ) AS chunk
    LIMIT $2::integer
));

-- The same, but for the last chunk of each job: that tells how many messages there were.
-- name: drop_all_but_last
DELETE FROM {schema}.messages WHERE ctid = ANY(ARRAY(
    SELECT chunk.ctid FROM unnest($1::bigint[]) AS given (job) CROSS JOIN LATERAL (
        SELECT ctid FROM {schema}.messages WHERE job = given.job AND first < (
            SELECT first FROM {schema}.messages WHERE job = given.job ORDER BY first DESC LIMIT 1
        )
        ORDER BY first LIMIT $2::integer
    ) AS chunk
    LIMIT $2::integer
))
RETURNING 1;

-- name: delete_tags
DELETE FROM {schema}.tags AS tag USING unnest($1::bigint[], $2::text[], $3::text[]) AS given (job, name, value)
WHERE tag.name = given.name AND tag.value = given.value AND tag.job = given.job;

-- name: delete_jobs
DELETE FROM {schema}.jobs WHERE seq = ANY($1::bigint[]);

-- name: notify
SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload;

-- name: ended_limit
SELECT
    {now} - $1::float8,
    (
        SELECT ARRAY[finished_at, seq::float8] FROM {schema}.jobs WHERE finished_at IS NOT NULL
        ORDER BY finished_at DESC, seq DESC LIMIT 1 OFFSET $2::bigint
    );

-- name: lock_ended
SELECT seq, tags FROM {schema}.jobs
WHERE finished_at IS NOT NULL AND (finished_at, seq) <= ($1::float8, $2::bigint)
ORDER BY finished_at, seq LIMIT $3::integer FOR UPDATE SKIP LOCKED;

-- name: oldest_end
SELECT (SELECT finished_at FROM {schema}.jobs WHERE finished_at IS NOT NULL ORDER BY finished_at LIMIT 1) - {now};

-- Jobs by their ids in $1, likewise but for those behind so many bytes, $5; each with its place in that list, the number of its
-- last message, and its chunks behind the number in $2: at most as many as $3 says, and of each job at most $4 bytes.
-- name: messages
SELECT
    {light when whole}, job.whole, job.place,
    (SELECT last FROM {schema}.messages WHERE job = job.seq ORDER BY first DESC LIMIT 1),
    chunks.firsts, chunks.lasts, chunks.bodies
FROM (
    SELECT
        job.*, wanted.after, wanted.many, wanted.place,
        sum({light size}) OVER (ORDER BY wanted.place ROWS UNBOUNDED PRECEDING) - {light size} < $5::bigint AS whole
    FROM unnest($1::text[], $2::bigint[], $3::integer[]) WITH ORDINALITY AS wanted (id, after, many, place)
    JOIN {schema}.jobs AS job ON job.id = wanted.id AND job.id = ANY($1::text[])
) AS job
CROSS JOIN LATERAL (
    SELECT
        array_agg(first ORDER BY first) AS firsts, array_agg(last ORDER BY first) AS lasts,
        array_agg(body ORDER BY first) AS bodies
    FROM (
        SELECT first, last, body, sum(octet_length(body)) OVER (ORDER BY first) - octet_length(body) AS before
        FROM {schema}.messages
        WHERE job.whole AND job = job.seq AND first >= coalesce(
            (SELECT max(first) FROM {schema}.messages WHERE job = job.seq AND first <= job.after + 1), 0
        )
        ORDER BY first LIMIT job.many
    ) AS chunk
    WHERE before <= $4::bigint
) AS chunks;

-- Finding. $1 queue, $2 executor, $3 states, $4 and $5 the names and values of tags, $6 behind which number, $7 how many.
-- Each of the next four is there twice: with the oldest first, and with the newest, by the name behind which that stands. Of
-- what each of the first three has found it gives the first so many bytes, its last parameter, and says how many there are.
-- name: find_all
SELECT {entry}, job.many FROM (
    SELECT job.*, {in order} FROM (
        SELECT * FROM {schema}.jobs WHERE seq {behind} $1::bigint ORDER BY seq {way} LIMIT $2::integer
    ) AS job
) AS job
WHERE job.before < $3::bigint ORDER BY job.seq {way};

-- name: find_in_groups
WITH RECURSIVE {cells}
SELECT {entry}, job.many FROM (
    SELECT job.*, {in order} FROM (
        SELECT seq FROM groups AS cell CROSS JOIN LATERAL (
            SELECT seq FROM {schema}.jobs AS job
            WHERE queue = cell.queue AND state = cell.state AND executor = cell.executor AND seq {behind} $6::bigint
                AND {has tags 4 5}
            ORDER BY seq {way} LIMIT $7::integer
        ) AS found
        ORDER BY seq {way} LIMIT $7::integer
    ) AS chosen JOIN {schema}.jobs AS job ON job.seq = chosen.seq
) AS job
WHERE job.before < $8::bigint ORDER BY job.seq {way};

-- name: find_by_tag
SELECT {entry}, job.many FROM (
    SELECT job.*, {in order} FROM (
        SELECT job.* FROM {schema}.tags AS tag CROSS JOIN LATERAL (
            SELECT * FROM {schema}.jobs WHERE seq = tag.job OFFSET 0  -- by its number, however few have such a state
        ) AS job
        WHERE tag.name = $8 AND tag.value = $9 AND tag.job {behind} $6::bigint
            AND ($1::text IS NULL OR queue = $1) AND ($2::text IS NULL OR executor = $2)
            AND ($3::text[] IS NULL OR state = ANY($3::text[]))
            AND {has tags 4 5}
        ORDER BY tag.job {way} LIMIT $7::integer
    ) AS job
) AS job
WHERE job.before < $10::bigint ORDER BY job.seq {way};

-- How many candidates each way of finding has, counted no further than to the last parameter: each of the tags, in
-- order, and the groups together.
-- name: candidates_by_tag
SELECT (
    SELECT count(*) FROM (
        SELECT FROM {schema}.tags
        WHERE name = given.name AND value = given.value AND job {behind} $3::bigint LIMIT $4::integer
    ) AS counted
)
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS given (name, value, place) ORDER BY place;

-- name: candidates_in_groups
WITH RECURSIVE {cells}
SELECT coalesce(sum((
    SELECT count(*) FROM (
        SELECT FROM {schema}.jobs
        WHERE queue = cell.queue AND state = cell.state AND executor = cell.executor AND seq {behind} $4::bigint
        LIMIT $5::integer
    ) AS counted
)), 0)
FROM groups AS cell;

-- name: counts
SELECT queue, state, count(*) FROM {schema}.jobs GROUP BY queue, state;

-- $1 and $2 the rarest tag, $3 and $4 the others.
-- name: counts_of
SELECT queue, state, count(*) FROM {schema}.tags AS tag CROSS JOIN LATERAL (
    SELECT seq, queue, state FROM {schema}.jobs WHERE seq = tag.job OFFSET 0
) AS job
WHERE tag.name = $1 AND tag.value = $2 AND {has tags 3 4}
GROUP BY queue, state;

-- $1 the queues, $2 the executors; NULL for all. $3 what the names of others begin with.
-- name: backlog
WITH RECURSIVE {all cells}
SELECT state, sum((
    SELECT count(*) FROM {schema}.jobs WHERE queue = cell.queue AND state = cell.state AND executor = cell.executor
))::bigint
FROM cells AS cell
WHERE state IN ('QUEUED', 'RETRYING', 'SCHEDULED', 'RUNNING') AND executor > ''
    AND ($2::text[] IS NULL OR executor = ANY($2::text[]))
    AND ($1::text[] IS NULL OR queue = ANY($1::text[]) OR EXISTS (
        SELECT FROM unnest($3::text[]) AS prefix WHERE starts_with(cell.queue, prefix)
    ))
    AND (state = 'RUNNING' OR NOT EXISTS (SELECT FROM {schema}.paused WHERE queue = cell.queue AND until = 'infinity'))
GROUP BY state;

-- A write in any case, so that its commit waits for the standbys that are to have it, also where it was paused before.
-- name: pause
INSERT INTO {schema}.paused (queue, until) VALUES ($1, {now} + $2::float8)
ON CONFLICT (queue) DO UPDATE SET until = greatest(paused.until, excluded.until);

-- name: resume
DELETE FROM {schema}.paused WHERE queue = $1;

-- name: paused
SELECT queue, until - {asked} FROM {schema}.paused WHERE until > {asked} ORDER BY queue;

-- name: order_of
SELECT seq FROM {schema}.jobs WHERE id = $1;

-- What a process asks now and then that is not told of news: which of its jobs were asked to stop.
-- name: asked_to_stop
SELECT id FROM {schema}.jobs WHERE state = 'RUNNING' AND session = $1 AND cancel IS NOT NULL;

-- The workers that are there.
-- name: be_there
WITH {clock}
INSERT INTO {schema}.workers AS worker (session, name, started_at, seen_at, until)
SELECT $1, $2, at, at, at + $3::float8 FROM clock
ON CONFLICT (session) DO UPDATE SET seen_at = excluded.seen_at, until = excluded.until;

-- name: leave
DELETE FROM {schema}.workers WHERE session = $1;

-- name: forget_workers
DELETE FROM {schema}.workers WHERE until < {asked} - 60::float8;

-- name: workers
SELECT name, started_at, seen_at, (
    SELECT count(*) FROM {schema}.jobs AS job WHERE job.state = 'RUNNING' AND job.session = worker.session
)
FROM {schema}.workers AS worker WHERE until > {now} ORDER BY name, started_at;
