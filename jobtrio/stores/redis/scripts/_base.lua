-- What every script works with. All keys begin with the prefix, which is the first key's name: its braces make a
-- cluster keep them together.
local PREFIX = KEYS[1]
local call = redis.call
local LIVING = {SCHEDULED = true, QUEUED = true, RUNNING = true, RETRYING = true}

local function job_key(id)
    return PREFIX .. 'job:' .. id
end

local function stream_key(id)
    return PREFIX .. 'messages:' .. id
end

-- Whoever may be the first to write behind somebody who has removed all there was, writes the format's version as well.
local function be_ours()
    call('SET', PREFIX .. 'version', '$VERSION', 'NX')
end

-- A cell is a queue and an executor, in one text: the queue's length, a colon, the queue, the executor.
local function cell_of(queue, executor)
    return #queue .. ':' .. queue .. executor
end

local function parts_of(cell)
    local length, colon = string.match(cell, '^(%d+)():')
    if not length then
        return '', '' -- somebody else has written it
    end
    return string.sub(cell, colon + 1, colon + length), string.sub(cell, colon + length + 1)
end

local function cell_key(state, cell)
    return PREFIX .. 'cell:' .. state .. ':' .. cell
end

local function tag_key(name, value)
    return PREFIX .. 'tag:' .. #name .. ':' .. name .. value
end

-- Numbers that somebody else may have written: `otherwise` stands for those that can't be counted with.
local function number(text, otherwise)
    local found = tonumber(text)
    return found and math.abs(found) < 2 ^ 53 and found or otherwise
end

local function count(text, otherwise)
    return text and #text <= 15 and string.match(text, '^%d+$') and tonumber(text) or otherwise
end

-- Whether a command has met what somebody else has written. Any other error is raised, such as of a missing right.
local function is_foreign(reply)
    if type(reply) ~= 'table' or not reply.err then
        return false
    end
    for _, why in ipairs({'WRONGTYPE', 'equal or smaller'}) do
        if string.find(reply.err, why, 1, true) then
            return true
        end
    end
    error(reply)
end

-- Fields of a job's hash; none where somebody has put something else in its place.
local function fields_of(id, ...)
    local found = redis.pcall('HMGET', job_key(id), ...)
    if is_foreign(found) then
        found = {}
        for n = 1, select('#', ...) do
            found[n] = false
        end
    end
    return found
end

-- A job's cell: where the hash does not say it, the plan does.
local function cell_in(id, text)
    if text and parts_of(text) ~= '' then
        return text
    end
    local is_read, cell = pcall(function()
        local plan = cjson.decode(call('HGET', job_key(id), 'plan'))
        return cell_of(plan.queue, type(plan.executor) == 'string' and plan.executor or '')
    end)
    return is_read and cell or ''
end

-- The number of a job's last message: where the hash does not say it, its stream does.
local function last_of(id, text)
    local last = count(text)
    if not last then
        local found = redis.pcall('XREVRANGE', stream_key(id), '+', '-', 'COUNT', 1)
        last = not is_foreign(found) and found[1] and count(string.match(found[1][1], '^%d+')) or 0
    end
    return last
end

-- All that the client makes an entry of, with the id behind it.
local function row_of(id)
    local row = fields_of(id, $FIELDS)
    row[#row + 1] = id
    return row
end

-- About how many bytes a row has.
local function size_of_row(row)
    return #(row[$body] or '') + #(row[$saved] or '') + #(row[$error] or '') + #(row[$history] or '')
end
