-- Take a running job from a worker that did not renew its lease.
-- Arguments: id, claim, attempt, worker, messages to keep, how many losses in a row end a job, error, reason of a
-- failure, the `Restart`. Returns the row, or nothing where the claim was renewed or the attempt has ended meanwhile.
-- with: base clock sets moves messages
local function work(args)
    local id, claim, attempt, worker, keep, most, error, reason, restarting = unpack(args)
    local job = get(id)
    -- Where the claim has been taken from outside, nobody holds the job.
    if not job or job.state ~= 'RUNNING' or (job.claim or '') ~= claim or job.attempt ~= attempt then
        return false
    end
    local lease_until = call('ZSCORE', PREFIX .. 'leases', id)
    if lease_until and tonumber(lease_until) > NOW then
        return false
    end
    local losses = count(fields_of(id, 'losses')[1], 0) + 1
    if job.cancel then
        end_job(id, job, 'CANCELLED', worker, reason_of(job.cancel), '', '')
    elseif losses >= tonumber(most) then
        end_job(id, job, 'FAILED', worker, reason, error, '')
    else
        leave(id, job)
        become_ready(id, job, worker, '"lost lease"', 'error', error)
        restart(id, job, keep, restarting)
    end
    call('HDEL', job_key(id), 'claim')
    call('HSET', job_key(id), 'losses', losses)
    return row_of(id)
end
