-- oldest: 1
-- The earliest moments at which queues whose starts are limited in time may start their next jobs. A worker that knows only
-- earlier versions goes on, and keeps to no such limit.

CREATE TABLE {schema}.rates (
    queue text COLLATE "C" PRIMARY KEY,
    next_at float8 NOT NULL
);
