-- Whoever else writes into the file is refused text where a number belongs, and times that no calendar has. A table is given
-- no constraint any more, but a new column brings some along; each is looked at where one of its columns is written. NULL
-- passes, and text is more than any number. The times are those of the years 1 to 9999.

ALTER TABLE jobs ADD COLUMN checked INTEGER CONSTRAINT "numbers and times of a job must be numbers" CHECK (
    typeof(priority) = 'integer' AND typeof(ticket) = 'integer' AND typeof(losses) = 'integer'
    AND typeof(failures) = 'integer' AND created_at BETWEEN -62135596800 AND 253402300799
    AND run_at BETWEEN -62135596800 AND 253402300799 AND delay BETWEEN 0 AND 9e999
    AND expires_in BETWEEN 0 AND 9e999 AND due BETWEEN 0 AND 9e999 AND expires BETWEEN 0 AND 9e999
) CONSTRAINT "attempt, start and lease of a job must be numbers" CHECK (
    typeof(attempt) = 'integer' AND started_at BETWEEN -62135596800 AND 253402300799 AND lease BETWEEN 0 AND 9e999
    AND lease_until BETWEEN 0 AND 9e999
) CONSTRAINT "finished_at of a job must be a number" CHECK (finished_at BETWEEN -62135596800 AND 253402300799);
