-- Ask to cancel: a job that does not run ends at once, a running one when its attempt is gone.
-- Arguments: id, grace, reason, worker.
-- Returns nothing for an unknown job; else whether it was accepted, and the row.
-- with: base clock sets moves
local function work(args)
    local id, grace, reason, worker = unpack(args)
    local job = get(id)
    if not job then
        return false
    end
    if FINAL[job.state] then
        return {0, row_of(id)}
    end
    local cancel = NOW_TEXT .. ',' .. grace .. ',' .. reason
    local asked, before, first = string.match(job.cancel or '', '^([^,]*),([^,]*),(.*)$')
    local left = tonumber(before)
    if left and left >= 0 then -- else somebody else has written it
        cancel = job.cancel
        if tonumber(grace) < left then
            cancel = asked .. ',' .. grace .. ',' .. first
        end
    end
    call('HSET', job_key(id), 'cancel', cancel)
    if job.state == 'RUNNING' then
        hint('cancel:' .. id)
        return {1, row_of(id)}
    end
    end_job(id, job, 'CANCELLED', worker, reason, '', '')
    return {1, row_of(id)}
end
