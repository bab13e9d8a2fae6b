-- The queues of which no job is started.

CREATE TABLE paused (
    queue TEXT PRIMARY KEY CONSTRAINT "queue must be text" CHECK (typeof(queue) = 'text')
) WITHOUT ROWID;
