-- Fail a job that was not started in time.
-- Arguments: id, worker, reason, error. Returns the row, or nothing where it has been started or ended meanwhile.
-- with: base clock sets moves
local function work(args)
    local id, worker, reason, error = unpack(args)
    local job = get(id)
    if not job or job.state ~= 'QUEUED' or job.attempt ~= '0' or not job.expires or tonumber(job.expires) > NOW then
        return false
    end
    end_job(id, job, 'FAILED', worker, reason, error, '')
    return row_of(id)
end
