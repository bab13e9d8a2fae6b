-- Fail a job that was not started in time.
-- Arguments: id, worker, reason, error. Returns the row, or nothing where it has been started or ended meanwhile.
-- with: base clock sets moves
local function work(args)
    local id, worker, reason, error = unpack(args)
    local job = get(id)
    if not job or job.state ~= 'QUEUED' then
        return false
    end
    -- Where that was changed from outside, the set is to say the same: else the job would be met for ever.
    local expires = job.attempt == '0' and job.expires
    if not expires then
        drop(PREFIX .. 'expiry', id)
        return false
    elseif expires > NOW then
        add_time(PREFIX .. 'expiry', expires, id)
        return false
    end
    end_job(id, job, 'FAILED', worker, reason, error, '')
    return row_of(id)
end
