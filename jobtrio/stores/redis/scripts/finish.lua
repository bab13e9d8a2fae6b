-- End a running job, after appending its last messages. A request to cancel that was accepted wins.
-- Arguments: id, claim, attempt, worker, messages to keep, state, reason, error, result, runs of messages.
-- Returns nothing where the claim does not hold the job; the time where it has ended as asked; else whether it was done just now, and the row.
-- with: base clock sets moves messages
local function work(args)
    local id, claim, attempt, worker, keep, state, reason, error, result = unpack(args, 1, 9)
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
    end_job(id, job, state, worker, reason, error, result)
    return job.moved
end
