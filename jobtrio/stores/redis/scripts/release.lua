-- Return a running job to its queue unfinished, after appending its last messages. A request to cancel wins.
-- Arguments: id, claim, attempt, worker, messages to keep, reason, the `Restart`, runs of messages.
-- Returns nothing where the claim does not hold the job, else whether it was done just now, and the row.
-- with: base clock sets moves messages
local function work(args)
    local id, claim, attempt, worker, keep, reason, restarting = unpack(args, 1, 7)
    local job = get(id)
    if not job or job.claim ~= claim or job.attempt ~= attempt then
        return false
    end
    if job.state ~= 'RUNNING' then
        return {0, row_of(id)} -- a repeated call
    end
    append(id, job, keep, args, 8)
    if job.cancel then
        end_job(id, job, 'CANCELLED', worker, reason_of(job.cancel), '', '')
        return {1, row_of(id)}
    end
    leave(id, job)
    become_ready(id, job, worker, reason, 'losses', '0')
    restart(id, job, keep, restarting)
    return {1, row_of(id)}
end
