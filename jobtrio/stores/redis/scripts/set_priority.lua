-- Give a job that waits for a start another priority; one that is ready stands behind all that are.
-- Arguments: id, priority. Returns nothing for an unknown job; else the row.
-- with: base clock sets moves
local function work(args)
    local id, priority = args[1], tonumber(args[2])
    local job = get(id)
    if not job then
        return false
    end
    if LIVING[job.state] and job.state ~= 'RUNNING' and job.priority ~= priority then
        job.priority, job.ticket = priority, call('INCR', PREFIX .. 'number')
        if job.state == 'QUEUED' and not is_held(job) then
            line_up(id, job)
        end
        local plan = fields_of(id, 'plan')[1]
        if plan then
            call('HSET', job_key(id), 'plan', with_priority(plan, priority))
        end
        call('HSET', job_key(id), 'priority', priority, 'ticket', job.ticket) -- last: what comes before may fail
    end
    return row_of(id)
end
