-- oldest: 1
-- The queues of which no job is started. A worker that knows the first version alone goes on, and starts them.

CREATE TABLE {schema}.paused (
    queue text COLLATE "C" PRIMARY KEY
);
