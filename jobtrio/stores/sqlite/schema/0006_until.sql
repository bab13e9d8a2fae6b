-- When the pause of a queue ends by itself, by wall time; infinity where it does not.

ALTER TABLE paused ADD COLUMN until REAL NOT NULL DEFAULT 9e999
    CONSTRAINT "until must be a number" CHECK (typeof(until) = 'real');
