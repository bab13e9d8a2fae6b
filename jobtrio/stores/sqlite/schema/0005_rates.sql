-- The earliest moments at which queues whose starts are limited in time may start their next jobs.

CREATE TABLE rates (
    queue TEXT PRIMARY KEY CONSTRAINT "queue must be text" CHECK (typeof(queue) = 'text'),
    next_at REAL NOT NULL CONSTRAINT "next_at must be a number" CHECK (typeof(next_at) = 'real')
) WITHOUT ROWID;
