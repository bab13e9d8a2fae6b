-- What every script works with. All keys begin with the prefix, which is the first key's name: its braces make a
-- cluster keep them together.
local PREFIX = KEYS[1]
local call = redis.call

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
    local colon = string.find(cell, ':', 1, true)
    local length = tonumber(string.sub(cell, 1, colon - 1))
    return string.sub(cell, colon + 1, colon + length), string.sub(cell, colon + length + 1)
end

local function cell_key(state, cell)
    return PREFIX .. 'cell:' .. state .. ':' .. cell
end

local function tag_key(name, value)
    return PREFIX .. 'tag:' .. #name .. ':' .. name .. value
end

-- All that the client makes an entry of, with the id behind it.
local function row_of(id)
    local row = call('HMGET', job_key(id), $FIELDS)
    row[#row + 1] = id
    return row
end
