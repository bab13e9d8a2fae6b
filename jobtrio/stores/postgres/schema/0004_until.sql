-- oldest: 1
-- When the pause of a queue ends by itself; infinity where it does not. A worker that knows only earlier versions keeps to
-- a pause until another one, or `resume`, has ended it.

ALTER TABLE {schema}.paused ADD COLUMN until float8 NOT NULL DEFAULT 'infinity';
