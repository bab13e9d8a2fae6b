-- Appending messages. They come in runs, each behind the number of its first and how many it has; what is stored of
-- a run is one entry of the stream, whose id is the number of its last message and how many there are.
local function add_messages(id, last, count, body)
    local key, name, text = stream_key(id), string.format('%.0f-%d', last, count), '[' .. body .. ']'
    if is_foreign(redis.pcall('XADD', key, name, 'm', text)) then
        call('UNLINK', key) -- it is in the way
        call('XADD', key, name, 'm', text)
    end
end

local function noted(id, last, keep)
    if last > keep then
        call('XTRIM', stream_key(id), 'MINID', string.format('%.0f', last - keep + 1))
    end
    call('HSET', job_key(id), 'last', string.format('%.0f', last))
end

-- Append the runs that the arguments have from `index` on, and pass over what is stored already. Returns whether
-- anything is new.
local function append(id, job, keep, args, index)
    local last = job.last
    local runs = tonumber(args[index])
    index = index + 1
    for _ = 1, runs do
        local first, count = tonumber(args[index]), tonumber(args[index + 1])
        local start = index + 2
        index = start + count
        local known = math.max(last + 1 - first, 0)
        if known < count then
            if first > last + 1 then
                call('UNLINK', stream_key(id)) -- what can be read has no hole in it
            end
            last = first + count - 1
            add_messages(id, last, count - known, table.concat(args, ',', start + known, index - 1))
        end
    end
    if last == job.last then
        return false
    end
    job.last = last
    noted(id, last, tonumber(keep))
    return true
end

local function restart(id, job, keep, text)
    job.last = job.last + 1
    add_messages(id, job.last, 1, text)
    noted(id, job.last, tonumber(keep))
    tell_readers(id)
end

-- Begin to end an attempt. Arguments 1 to 5 are: id, claim, attempt, worker, messages to keep; its last messages are those
-- from `index` on. Returns the job, or nothing and the answer where there is no more to do: a request to cancel that was
-- accepted wins, and the attempt's error is kept.
local function leave_attempt(args, index, error)
    local id, claim, attempt, worker, keep = unpack(args, 1, 5)
    local job = get(id)
    if not job or job.claim ~= claim or job.attempt ~= attempt then
        return nil, false
    end
    if job.state ~= 'RUNNING' then
        return nil, {0, row_of(id)} -- a repeated call
    end
    append(id, job, keep, args, index)
    if job.cancel then
        end_job(id, job, 'CANCELLED', worker, reason_of(job.cancel), error, '')
        return nil, {1, row_of(id)}
    end
    return job
end
