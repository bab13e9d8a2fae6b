-- Changing a job's state. A job that has been got is a table of what the scripts look at.
local LEVEL = 1125899906842624 -- 2^50: places in line within one priority
local FINAL = {COMPLETED = true, FAILED = true, CANCELLED = true}

local function get(id)
    local found = fields_of(id, 'state', 'claim', 'attempt', 'cell', 'order', 'priority', 'cancel',
        'moved', 'last', 'expires', 'history')
    if not found[1] then
        return nil
    end
    return {
        state = found[1], claim = found[2], attempt = string.format('%.0f', count(found[3], 0)),
        cell = cell_in(id, found[4]), order = count(found[5], 0), priority = number(found[6], 1), cancel = found[7],
        moved = found[8], last = last_of(id, found[9]), expires = number(found[10]), history = found[11] or '',
    }
end

local function is_held(job)
    local _, executor = parts_of(job.cell)
    return executor == ''
end

-- Put a job into its line. A hint is worth it where the line was empty: whoever is idle has found it so.
local function line_up(id, job)
    if not change_line(job.cell) then
        hint('work')
        moving[job.cell] = true
    end
    add(PREFIX .. 'line:' .. job.cell, string.format('%.0f', (3 - job.priority) * LEVEL + job.ticket), id)
end

local function leave_line(id, job)
    change_line(job.cell)
    drop(PREFIX .. 'line:' .. job.cell, id)
end

-- The limits that all workers share: queues, and patterns, which end in a star; where there are any, also ''.
local function note_limit(queue, pattern)
    if pattern then
        call('SADD', PREFIX .. 'limited', '', pattern)
    else
        call('SADD', PREFIX .. 'limited', queue)
    end
end

local prefixes -- of the patterns: looked up once for all calls
local function is_limited(queue)
    local is_named, by_pattern = unpack(call('SMISMEMBER', PREFIX .. 'limited', queue, ''))
    if is_named == 1 or by_pattern == 0 then
        return is_named == 1
    end
    if not prefixes then
        prefixes = {}
        for _, key in ipairs(call('SMEMBERS', PREFIX .. 'limited')) do
            if string.sub(key, -1) == '*' then
                prefixes[#prefixes + 1] = string.sub(key, 1, -2)
            end
        end
    end
    for _, prefix in ipairs(prefixes) do
        if string.sub(queue, 1, #prefix) == prefix then
            return true
        end
    end
    return false
end

-- A plan with this priority. It is JSON, of which no text can hold what is looked for: there each quotation mark has a
-- backslash before it.
local function with_priority(plan, priority)
    return (string.gsub(plan, '"priority":%-?%d+', '"priority":' .. priority, 1))
end

-- Where all workers share a limit, the others may start a job when one runs no more.
local limited = {}
local function made_room(cell)
    local queue = parts_of(cell)
    if limited[queue] == nil then
        limited[queue] = is_limited(queue)
        if limited[queue] then
            hint('work')
        end
    end
end

-- Take a job out of what it waits or runs in.
local function leave(id, job)
    if job.state == 'RUNNING' then
        drop(PREFIX .. 'leases', id)
        made_room(job.cell)
        return
    end
    if job.state == 'QUEUED' then
        leave_line(id, job)
    else
        drop(PREFIX .. 'due', id)
    end
    if job.expires and job.attempt == '0' then
        drop(PREFIX .. 'expiry', id)
    end
end

-- What is kept of a history that an attempt is added to: whole attempts, the newest. None has fewer than two lines. The
-- pattern is that of a line's beginning; a text can't hold it, where each quotation mark has a backslash before it.
local function trimmed(history, attempt)
    if tonumber(attempt) < $HISTORY / 3 then
        return history
    end
    local lines, starts = 0, {}
    for at, state in string.gmatch(history, '(),[%d.e+-]+,"([A-Z]+)",%d+,') do
        lines = lines + 1
        if state == 'RUNNING' then
            starts[#starts + 1] = {at, lines}
        end
    end
    for _, start in ipairs(starts) do
        local left = lines - start[2] + 1
        if left + 4 <= $HISTORY then -- the first line, which is told by other fields, and three of the new attempt
            return string.sub(history, start[1])
        end
    end
    return history
end

-- Bring a job into a state, with a line of its history; what else changes follows as names and values.
local function move(id, job, state, worker, reason, ...)
    local moved, before = NOW_TEXT, number(job.moved, 0)
    if before > NOW then
        moved = string.format('%.6f', before) -- the clock has stepped back; a history does not
    end
    drop(cell_key(job.state, job.cell), id)
    add(cell_key(state, job.cell), job.order, id)
    job.state, job.moved = state, moved
    if state == 'RUNNING' then
        job.history = trimmed(job.history, job.attempt)
    end
    job.history = job.history .. ',' .. moved .. ',"' .. state .. '",' .. job.attempt .. ',' .. worker .. ',' .. reason
    call('HSET', job_key(id), 'state', state, 'moved', moved, 'history', job.history, ...)
end

local function become_ready(id, job, worker, reason, ...)
    job.ticket = call('INCR', PREFIX .. 'number')
    if not is_held(job) then
        line_up(id, job)
    end
    move(id, job, 'QUEUED', worker, reason, ...) -- last: what comes before may fail
end

local function tell_readers(id)
    call('SPUBLISH', stream_key(id), '')
end

-- End a job: its state and, since readers take it from there, its `End`. Texts are JSON, or '' for none.
local function end_job(id, job, state, worker, reason, error, result)
    leave(id, job)
    local kept = {}
    if error ~= '' then
        kept = {'error', error}
    end
    if result ~= '' then
        kept[#kept + 1] = 'result'
        kept[#kept + 1] = result
    end
    move(id, job, state, worker, reason, unpack(kept))
    add(PREFIX .. 'ended', job.moved, id)
    tell_readers(id)
end

-- A request to cancel is kept as its time, its grace and its reason (JSON), with commas between.
local function reason_of(cancel)
    return string.match(cancel, '^[^,]*,[^,]*,(.*)$') or 'null'
end
