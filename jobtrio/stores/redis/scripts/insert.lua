-- Store new jobs, all or none.
-- Arguments: the submission, the seconds that held jobs are held ('' for no limit), how many jobs, and of each: id, key, queue,
-- executor, priority, plan, body, tags, delay, expires_in. '' stands for none.
-- Returns, for each: the number, the time, what its expiry is, if it was stored; else the row of the job that stands
-- for it. An id in use: its text alone.
-- with: base clock sets moves
local SIZE = 10
local known_cells = {}
local delayed = 0

-- The job that has a key, if any; one that has been taken out from outside has none.
local function holder_of(key)
    local id = call('HGET', PREFIX .. 'keys', key)
    return id and call('EXISTS', job_key(id)) == 1 and id
end

-- Say for each job which one stands for it already, if any; or which id is in use by another.
local function look(args, submission, count)
    local placed, placed_keys, standing_for = {}, {}, {}
    for n = 1, count do
        local index = 3 + (n - 1) * SIZE
        local id, key = args[index + 1], args[index + 2]
        local mark = call('HGET', job_key(id), 'submission')
        local holder = key ~= '' and (placed_keys[key] or holder_of(key))
        if mark == submission then
            standing_for[n] = id
        elseif holder then
            standing_for[n] = holder
        elseif mark or placed[id] then
            return nil, id
        else
            placed[id] = true
            if key ~= '' then
                placed_keys[key] = id
            end
        end
    end
    return standing_for
end

-- When a job expires; and when it will once it is started, if it is held. '' for never.
local function expiry(executor, delay, expires_in, held_for)
    local expires = ''
    if expires_in ~= '' then
        expires = in_seconds(tonumber(expires_in))
    end
    if executor ~= '' then
        return expires, ''
    end
    if held_for == math.huge then
        return expires, expires
    end
    if expires_in ~= '' then
        return in_seconds(math.min(delay + held_for, tonumber(expires_in))), expires
    end
    return in_seconds(delay + held_for), ''
end

local function place(args, index, submission, held_for, order)
    local id, key, queue, executor, priority = unpack(args, index + 1, index + 5)
    local plan, body, tags, delay_text, expires_in = unpack(args, index + 6, index + 10)
    local delay = tonumber(delay_text)
    local job = {state = 'QUEUED', cell = cell_of(queue, executor), priority = priority, ticket = order}
    if delay > 0 then
        job.state = 'SCHEDULED'
    end
    local expires, later = expiry(executor, delay, expires_in, held_for)
    local fields = {
        'order', order, 'created', NOW_TEXT, 'moved', NOW_TEXT, 'submission', submission, 'cell', job.cell,
        'priority', priority, 'state', job.state, 'attempt', '0', 'last', '0', 'plan', plan, 'body', body,
        'history', '',
    }
    local function note(name, value)
        if value ~= '' then
            fields[#fields + 1] = name
            fields[#fields + 1] = value
        end
    end
    note('key', key)
    note('tags', tags)
    note('expires', expires)
    note('later', later)
    if key ~= '' then
        call('HSET', PREFIX .. 'keys', key, id)
    end
    if tags ~= '' then
        for name, value in pairs(cjson.decode(tags)) do
            add(tag_key(name, value), order, id)
        end
    end
    add(PREFIX .. 'all', order, id)
    add(cell_key(job.state, job.cell), order, id)
    if not known_cells[job.cell] then
        call('SADD', PREFIX .. 'cells', job.cell)
        known_cells[job.cell] = true
    end
    if delay > 0 then
        delayed = delayed + 1
        delay = delay + delayed / 1000000 -- one behind the other: at one time the set has them by their ids
    end
    if expires ~= '' then
        add_time(PREFIX .. 'expiry', in_seconds(math.max(tonumber(expires) - NOW, delay)), id)
    end
    if delay > 0 then
        add_time(PREFIX .. 'due', in_seconds(delay), id)
    elseif executor ~= '' then
        line_up(id, job)
    end
    -- Last: a job that is there is taken for one that is stored, when this is called again.
    call('HSET', job_key(id), unpack(fields))
    making[#making + 1] = job_key(id)
    return {order, NOW_TEXT, expires}
end

local function work(args)
    local submission, held_for, count = args[1], tonumber(args[2]) or math.huge, tonumber(args[3])
    local standing_for, used = look(args, submission, count)
    if used then
        return used
    end
    local last = call('INCRBY', PREFIX .. 'number', count)
    if last == count then
        be_ours()
    end
    local answers = {}
    for n = 1, count do
        if not standing_for[n] then
            answers[n] = place(args, 3 + (n - 1) * SIZE, submission, held_for, last - count + n)
        end
    end
    for n = 1, count do
        if standing_for[n] then
            answers[n] = row_of(standing_for[n])
        end
    end
    return answers
end
