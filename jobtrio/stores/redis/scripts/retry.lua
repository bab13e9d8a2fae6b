-- Let a failed attempt be followed by another, after appending its last messages. A request to cancel wins.
-- Arguments: id, claim, attempt, worker, messages to keep, delay, reason, error, the `Restart`, runs of messages.
-- Returns nothing where the claim does not hold the job, else whether it was done just now, and the row.
-- with: base clock sets moves messages
local function work(args)
    local id, claim, attempt, worker, keep, delay, reason, error, restarting = unpack(args, 1, 9)
    local job = get(id)
    if not job or job.claim ~= claim or job.attempt ~= attempt then
        return false
    end
    if job.state ~= 'RUNNING' then
        return {0, row_of(id)} -- a repeated call
    end
    append(id, job, keep, args, 10)
    if job.cancel then
        end_job(id, job, 'CANCELLED', worker, reason_of(job.cancel), error, '')
        return {1, row_of(id)}
    end
    leave(id, job)
    restart(id, job, keep, restarting)
    increment(id, 'failures')
    move(id, job, 'RETRYING', worker, reason, 'error', error, 'losses', '0')
    add_time(PREFIX .. 'due', in_seconds(tonumber(delay)), id)
    return {1, row_of(id)}
end
