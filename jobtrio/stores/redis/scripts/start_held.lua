-- Give a held job its plan, all but the priority, and make it ready.
-- Arguments: id, queue, executor, plan. Returns 1; or 0 where it was not held (any more), or 2 where it has
-- this very plan.
-- with: base clock sets moves removing
local function set_expiry(id)
    local later = number(call('HGET', job_key(id), 'later'))
    if later then
        call('HSET', job_key(id), 'expires', string.format('%.6f', later))
        add(PREFIX .. 'expiry', later, id) -- never earlier than it was
    else
        call('HDEL', job_key(id), 'expires')
        drop(PREFIX .. 'expiry', id)
    end
end

local function work(args)
    local id, queue, executor, plan = unpack(args)
    local job = get(id)
    plan = job and with_priority(plan, job.priority)
    if job and not is_held(job) and call('HGET', job_key(id), 'plan') == plan then
        return 2
    end
    if not job or not is_held(job) or (job.state ~= 'QUEUED' and job.state ~= 'SCHEDULED') then
        return 0
    end
    if job.expires and job.expires <= NOW then
        return 0 -- it has expired, though nobody has made it fail yet
    end
    drop(cell_key(job.state, job.cell), id)
    left[job.cell] = true
    job.cell = cell_of(queue, executor)
    add(cell_key(job.state, job.cell), job.order, id)
    call('SADD', PREFIX .. 'cells', job.cell)
    if job.state == 'QUEUED' then
        job.ticket = call('INCR', PREFIX .. 'number')
        line_up(id, job)
    end
    call('HSET', job_key(id), 'cell', job.cell, 'plan', plan) -- what comes before may fail
    set_expiry(id)
    forget_cells() -- which settles: the same job may be asked for again
    return 1
end
