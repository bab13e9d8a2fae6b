-- The statements, by name. {entry} and {job.entry} stand for the columns that make a JobEntry.

-- name: number
SELECT last FROM numbers;

-- name: keep_number
UPDATE numbers SET last = ?;

-- name: by_id
SELECT {entry} FROM jobs WHERE id = ?;

-- name: by_key
SELECT {entry} FROM jobs WHERE key = ?;

-- name: by_seq
SELECT {entry} FROM jobs WHERE seq = ?;

-- name: asides
SELECT name, value FROM asides WHERE job = ?;

-- name: light_asides
SELECT name, value FROM asides WHERE job = ? AND name IN ('error', 'result');

-- name: aside
SELECT value FROM asides WHERE job = ? AND name = ?;

-- name: put_aside
INSERT OR REPLACE INTO asides (job, name, value) VALUES (?, ?, ?);

-- name: drop_aside
DELETE FROM asides WHERE job = ? AND name = ?;

-- name: count_asides
UPDATE jobs SET asides = (SELECT count(*) FROM asides WHERE job = jobs.seq) WHERE seq = ?;

-- name: insert
INSERT INTO jobs (
    seq, id, key, submission, executor, queue, priority, state, ticket, plan, payload, metadata, tags, created_at, run_at,
    delay, expires_in, due, expires
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: insert_tag
INSERT INTO tags (name, value, job) VALUES (?, ?, ?);

-- name: replan
UPDATE jobs SET executor = ?, queue = ?, priority = ?, plan = ?, expires = ?, ticket = ? WHERE seq = ?;

-- name: prioritize
UPDATE jobs SET priority = ?, ticket = ? WHERE seq = ?;

-- name: move
UPDATE jobs SET
    state = ?, ticket = ?, claim = ?, losses = ?, failures = ?, due = ?, finished_at = ?, cancel = ?, error = ?,
    result = ?, history = ?
WHERE seq = ?;

-- A job that runs has a history, so that its text ends with a bracket behind something.
-- name: complete
UPDATE jobs SET
    state = 'COMPLETED', finished_at = ?, result = ?, history = substr(history, 1, length(history) - 1) || ?
WHERE seq = ? AND id = ? AND state = 'RUNNING' AND claim = ? AND attempt = ? AND cancel IS NULL;

-- name: ask_to_cancel
UPDATE jobs SET cancel = ? WHERE seq = ?;

-- name: save_state
UPDATE jobs SET saved_state = ? WHERE seq = ?;

-- name: holder
SELECT session, cancel FROM jobs WHERE seq = ? AND id = ? AND state = 'RUNNING' AND claim = ? AND attempt = ?;

-- name: claimed
SELECT {entry} FROM jobs WHERE state = 'RUNNING' AND session = ? AND claim = ? ORDER BY seq;

-- The first ready job of each line, by leaps from one line to the next. (A comparison of pairs would not leap.) Those of
-- paused queues are left out behind the leaps, which would else go over all jobs of such a queue.
-- name: lines
WITH RECURSIVE heads (seq) AS (
    VALUES ((
        SELECT seq FROM jobs INDEXED BY jobs_ready WHERE state = 'QUEUED' AND executor > ''
        ORDER BY queue, executor, priority DESC, ticket LIMIT 1
    ))
    UNION ALL
    SELECT coalesce(
        (
            SELECT next.seq FROM jobs AS next INDEXED BY jobs_ready
            WHERE next.state = 'QUEUED' AND next.queue = job.queue AND next.executor > job.executor
                AND next.executor > ''
            ORDER BY next.executor, next.priority DESC, next.ticket LIMIT 1
        ),
        (
            SELECT next.seq FROM jobs AS next INDEXED BY jobs_ready
            WHERE next.state = 'QUEUED' AND next.executor > '' AND next.queue > job.queue
            ORDER BY next.queue, next.executor, next.priority DESC, next.ticket LIMIT 1
        )
    )
    FROM heads JOIN jobs AS job ON job.seq = heads.seq
)
SELECT job.queue, job.executor, job.priority, job.ticket FROM heads CROSS JOIN jobs AS job ON job.seq = heads.seq
WHERE NOT EXISTS (SELECT 1 FROM paused WHERE paused.queue = job.queue AND paused.until > ?);

-- That it is "unlikely" keeps SQLite 3.40 and older from going by the other condition on the executor, which only says
-- that the index may be used: they would sort all that is behind it.
-- name: line
SELECT {entry} FROM jobs INDEXED BY jobs_ready
WHERE state = 'QUEUED' AND executor > '' AND queue = ? AND unlikely(executor = ?)
    AND (attempt > 0 OR expires IS NULL OR expires > ?)
ORDER BY priority DESC, ticket LIMIT ? OFFSET ?;

-- name: start
UPDATE jobs SET
    state = ?, attempt = ?, claim = ?, session = ?, worker = ?, started_at = ?, lease = ?, lease_until = ?, history = ?
WHERE seq = ?;

-- name: renew
UPDATE jobs SET lease = ?, lease_until = ? WHERE seq = ?;

-- name: take_over
UPDATE jobs SET session = ? WHERE seq = ?;

-- name: due
SELECT {entry} FROM jobs INDEXED BY jobs_due
WHERE state IN ('SCHEDULED', 'RETRYING') AND due <= ? ORDER BY due LIMIT ?;

-- name: next_due
SELECT min(due) FROM jobs INDEXED BY jobs_due WHERE state IN ('SCHEDULED', 'RETRYING');

-- name: expired
SELECT {entry} FROM jobs INDEXED BY jobs_expiry
WHERE state = 'QUEUED' AND attempt = 0 AND expires IS NOT NULL AND expires <= ? ORDER BY expires LIMIT ?;

-- name: next_expiry
SELECT min(expires) FROM jobs INDEXED BY jobs_expiry
WHERE state = 'QUEUED' AND attempt = 0 AND expires IS NOT NULL;

-- name: leases
SELECT seq, session, lease, lease_until FROM jobs INDEXED BY jobs_running WHERE state = 'RUNNING';

-- name: chunks_end
SELECT last FROM messages WHERE job = ? ORDER BY first DESC LIMIT 1;

-- name: insert_chunk
INSERT INTO messages (job, first, last, body) VALUES (?, ?, ?, ?);

-- name: trim_chunks
DELETE FROM messages WHERE job = ? AND first IN (
    SELECT first FROM messages WHERE job = ? AND first <= ? AND last <= ? ORDER BY first LIMIT ?
);

-- name: drop_chunks
DELETE FROM messages WHERE job = ? AND first IN (SELECT first FROM messages WHERE job = ? ORDER BY first LIMIT ?);

-- name: chunks
SELECT first, last, body FROM messages
WHERE job = ? AND first >= coalesce((SELECT max(first) FROM messages WHERE job = ? AND first <= ?), 0)
ORDER BY first;

-- name: delete_job
DELETE FROM jobs WHERE seq = ?;

-- name: delete_asides
DELETE FROM asides WHERE job = ?;

-- name: delete_tag
DELETE FROM tags WHERE name = ? AND value = ? AND job = ?;

-- name: ended_beyond
SELECT finished_at, seq FROM jobs INDEXED BY jobs_ended WHERE finished_at IS NOT NULL
ORDER BY finished_at DESC, seq DESC LIMIT 1 OFFSET ?;

-- name: ended_until
SELECT seq, tags FROM jobs INDEXED BY jobs_ended WHERE finished_at IS NOT NULL AND (finished_at, seq) <= (?, ?)
ORDER BY finished_at, seq LIMIT ?;

-- name: oldest_end
SELECT min(finished_at) FROM jobs INDEXED BY jobs_ended WHERE finished_at IS NOT NULL;

-- The queues and executors that jobs have, by leaps.
-- name: cells
WITH RECURSIVE cells (seq) AS (
    VALUES ((SELECT seq FROM jobs INDEXED BY jobs_cells ORDER BY queue, executor LIMIT 1))
    UNION ALL
    SELECT coalesce(
        (
            SELECT next.seq FROM jobs AS next INDEXED BY jobs_cells
            WHERE next.queue = job.queue AND next.executor > job.executor ORDER BY next.executor LIMIT 1
        ),
        (
            SELECT next.seq FROM jobs AS next INDEXED BY jobs_cells
            WHERE next.queue > job.queue ORDER BY next.queue, next.executor LIMIT 1
        )
    )
    FROM cells JOIN jobs AS job ON job.seq = cells.seq
)
SELECT job.queue, job.executor FROM cells CROSS JOIN jobs AS job ON job.seq = cells.seq;

-- name: count_cell
SELECT count(*) FROM jobs INDEXED BY jobs_cells WHERE queue = ? AND executor = ? AND state = ?;

-- name: count_all
SELECT queue, state, count(*) FROM jobs INDEXED BY jobs_cells GROUP BY queue, executor, state;

-- name: pause
INSERT INTO paused (queue, until) VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET until = max(until, excluded.until);

-- name: resume
DELETE FROM paused WHERE queue = ?;

-- name: paused
SELECT queue, until FROM paused WHERE until > ? ORDER BY queue;

-- name: next_resume
SELECT min(until) FROM paused;

-- name: end_pauses
DELETE FROM paused WHERE until <= ?;

-- name: running_queues
SELECT queue FROM jobs INDEXED BY jobs_running WHERE state = 'RUNNING';

-- name: next_at
SELECT next_at FROM rates WHERE queue = ?;

-- name: set_next_at
INSERT INTO rates (queue, next_at) VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET next_at = excluded.next_at;

-- name: forget_rates
DELETE FROM rates WHERE next_at < ?;

-- name: next_starts
SELECT queue, next_at FROM rates WHERE next_at > ? AND EXISTS (
    SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE state = 'QUEUED' AND jobs.queue = rates.queue AND executor > ''
) AND NOT EXISTS (SELECT 1 FROM paused WHERE paused.queue = rates.queue AND paused.until > ?);

-- name: be_there
INSERT INTO workers (session, name, started_at, seen_at, until) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (session) DO UPDATE SET seen_at = excluded.seen_at, until = excluded.until;

-- name: leave
DELETE FROM workers WHERE session = ? OR until <= ?;

-- name: workers
SELECT name, started_at, seen_at, (
    SELECT count(*) FROM jobs INDEXED BY jobs_running WHERE state = 'RUNNING' AND jobs.session = workers.session
)
FROM workers WHERE until > ?;

-- name: count_tag
SELECT count(*) FROM (SELECT 1 FROM tags WHERE name = ? AND value = ? AND job > ? AND job < ? LIMIT ?);

-- name: count_group
SELECT count(*) FROM (
    SELECT 1 FROM jobs INDEXED BY jobs_cells
    WHERE queue = ? AND executor = ? AND state = ? AND seq > ? AND seq < ? LIMIT ?
);

-- The next five are parts that a search is put together from.
-- name: between
SELECT {entry} FROM jobs WHERE seq > ? AND seq < ?;

-- name: tagged
SELECT {job.entry} FROM tags AS tag CROSS JOIN jobs AS job ON job.seq = tag.job
WHERE tag.name = ? AND tag.value = ? AND tag.job > ? AND tag.job < ?;

-- name: count_tagged
SELECT job.queue, job.state, count(*) FROM tags AS tag CROSS JOIN jobs AS job ON job.seq = tag.job
WHERE tag.name = ? AND tag.value = ?;

-- name: grouped
SELECT job.seq FROM jobs AS job INDEXED BY jobs_cells
WHERE job.queue = ? AND job.executor = ? AND job.state = ? AND job.seq > ? AND job.seq < ?;

-- The plus keeps SQLite 3.51 and newer from joining the table for each tag, in orders that it compares for a tenth of a
-- second where there are fifty.
-- name: has_tag
+EXISTS (SELECT 1 FROM tags AS other WHERE other.name = ? AND other.value = ? AND other.job = job.seq);

-- name: running
SELECT 1 FROM jobs INDEXED BY jobs_running WHERE state = 'RUNNING' AND session = ? LIMIT 1;
