-- Let jobs become ready whose time has come, end pauses, and tell which have expired and whose leases have lapsed.
-- Arguments: the worker, how many of each at most, how many bytes at most.
-- Returns the rows of those made ready, those expired, those lapsed, and the seconds until there is more, if known.
-- with: base clock sets moves
local function first_until_now(key, most, ...)
    return call('ZRANGE', PREFIX .. key, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, most, ...)
end

local TOGETHER = 1000 -- so many leases may end at once: those of one claim

-- The first leases that are over, and those that ended with the last of them: the set has these by their ids.
local function first_leases(most)
    local found, leases = first_until_now('leases', most + TOGETHER, 'WITHSCORES'), {}
    for n = 1, #found, 2 do
        if n > 2 * most and found[n + 1] ~= found[2 * most] then
            break
        end
        local state, order = unpack(fields_of(found[n], 'state', 'order'))
        leases[#leases + 1] = {id = found[n], state = state, over = tonumber(found[n + 1]), order = count(order, 0)}
    end
    table.sort(leases, function(one, other)
        if one.over ~= other.over then
            return one.over < other.over
        end
        return one.order < other.order
    end)
    return leases
end

local function seconds_left()
    local following = math.huge
    for _, key in ipairs({'due', 'expiry', 'leases', 'pauses'}) do
        local first = call('ZRANGE', PREFIX .. key, 0, 0, 'WITHSCORES')
        if first[2] then
            following = math.min(following, tonumber(first[2]) - NOW)
        end
    end
    if following == math.huge then
        return ''
    end
    return string.format('%.6f', math.max(following, 0))
end

local function work(args)
    local worker, most, size = args[1], tonumber(args[2]), 0
    local ready, expired, lapsed = {}, {}, {}
    local function is_full()
        return size >= tonumber(args[3])
    end
    local function note(rows, id)
        local row = row_of(id)
        rows[#rows + 1] = row
        size = size + size_of_row(row)
    end
    for _, id in ipairs(first_until_now('due', most)) do
        if is_full() then
            break
        end
        drop(PREFIX .. 'due', id)
        local job = get(id)
        if job and job.state ~= 'RUNNING' and not FINAL[job.state] then
            become_ready(id, job, worker, 'null')
            note(ready, id)
        end
    end
    -- A job that is not where it should be has been taken from outside: it is not to be met for ever.
    for _, id in ipairs(first_until_now('expiry', most)) do
        local state = fields_of(id, 'state')[1]
        if is_full() then
            break
        elseif state == 'QUEUED' then
            note(expired, id)
        elseif state == 'SCHEDULED' then
            call('ZADD', PREFIX .. 'due', 'NX', NOW, id)
        else
            drop(PREFIX .. 'expiry', id)
        end
    end
    for n, lease in ipairs(first_leases(most)) do
        if n > most or is_full() then
            break
        elseif lease.state == 'RUNNING' then
            note(lapsed, lease.id)
        else
            drop(PREFIX .. 'leases', lease.id)
        end
    end
    if call('ZREMRANGEBYSCORE', PREFIX .. 'pauses', '-inf', NOW_TEXT) > 0 then
        hint('work')
    end
    settle()
    return {ready, expired, lapsed, seconds_left()}
end
