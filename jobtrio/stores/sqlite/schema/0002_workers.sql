-- The workers that are there.

CREATE TABLE workers (
    session TEXT PRIMARY KEY,    -- the opened store: a name in the folder of doorbells
    name TEXT NOT NULL,
    started_at REAL NOT NULL,    -- wall time in seconds, as the next two
    seen_at REAL NOT NULL,
    until REAL NOT NULL          -- it is there for as long
) WITHOUT ROWID;
