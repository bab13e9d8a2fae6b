-- Start ready jobs, by priority, then in the order in which they became ready.
-- Arguments: the claim's id, how many at most, the lease's seconds, the worker, its session, how many bytes at most,
-- the last claim that was answered and will not be made again ('' for none), and then seven lists, each behind its
-- length, or behind -1 where all will do: queues and how many of each; executors; queues and how many may run of each
-- in all; what the names of other queues begin with, the longest first, and how many of each of these; and how many may
-- run of each in all; and queues, and then beginnings of names, of which only so many may start in a time, each with
-- the seconds between two starts, and those that a burst reaches back.
-- Returns whether the claims are new, whether there may be more at once, the rows, and the server's time.
-- with: base clock sets moves heap
local function claimed_before(claim)
    local rows = {}
    for _, id in ipairs(call('LRANGE', PREFIX .. 'claim:' .. claim, 0, -1)) do
        local found = fields_of(id, 'state', 'claim')
        if found[1] == 'RUNNING' and found[2] == claim then
            rows[#rows + 1] = row_of(id)
        end
    end
    return rows
end

-- What a list says of a name: that it is there, a number, or two.
local function value_at(args, n, size)
    if size == 1 then
        return true
    end
    local first = tonumber(args[n + 1])
    return size == 2 and first or {every = first, reach = tonumber(args[n + 2])}
end

local function read_list(args, index, size)
    local length = tonumber(args[index])
    if length < 0 then
        return nil, index + 1
    end
    local list = {}
    for n = index + 1, index + length * size, size do
        list[args[n]] = value_at(args, n, size)
    end
    return list, index + length * size + 1
end

-- Give a list of queues those as well, once they are asked for, whose names begin with what the arguments say; a queue
-- of which they say nothing is false. Returns the pattern that has given each queue its number.
local function add_patterns(list, args, index, size)
    local length, patterns = tonumber(args[index]), {}
    if length < 0 then
        return patterns, index + 1
    end
    local last = index + size * length
    setmetatable(list, {__index = function(_, queue)
        local found = false
        for n = index + 1, last, size do
            if string.sub(queue, 1, #args[n]) == args[n] then
                found, patterns[queue] = value_at(args, n, size), args[n] .. '*'
                break
            end
        end
        list[queue] = found
        return found
    end})
    return patterns, last + 1
end

-- How many jobs run in each limited queue: counted by the cells or, where there are fewer, one by one.
local function running_in(totals)
    local running = {}
    local function add_some(cell, some)
        local queue = parts_of(cell)
        running[queue] = (running[queue] or 0) + some
    end
    if call('ZCARD', PREFIX .. 'leases') < call('SCARD', PREFIX .. 'cells') then
        for _, id in ipairs(call('ZRANGE', PREFIX .. 'leases', 0, -1)) do
            local found = fields_of(id, 'state', 'cell')
            if found[1] == 'RUNNING' then
                add_some(cell_in(id, found[2]), 1)
            end
        end
        return running
    end
    for _, cell in ipairs(call('SMEMBERS', PREFIX .. 'cells')) do
        if totals[parts_of(cell)] then
            add_some(cell, call('ZCARD', cell_key('RUNNING', cell)))
        end
    end
    return running
end

-- From when on the starts of a queue are counted that are free, one for each interval. What lies further ahead than the
-- limit can have put it was put there by another clock, or another limit.
local function base_of(queue, rate)
    local next_at = tonumber(call('ZSCORE', PREFIX .. 'rates', queue) or nil)
    if not next_at then
        return NOW - rate.reach
    end
    return next_at > NOW + rate.every + $ROUNDED and NOW or math.max(next_at, NOW - rate.reach)
end

-- How many may be taken from each queue, once that is asked for; the bases of those whose starts are limited are noted.
local function room_left(room, totals, rates, bases)
    local running = totals and running_in(totals)
    return setmetatable({}, {__index = function(left, queue)
        local most, total = not room and math.huge or room[queue] or 0, totals and totals[queue]
        local rate = rates and rates[queue]
        if total then
            most = math.min(most, total - (running[queue] or 0))
        end
        if rate then
            bases[queue] = base_of(queue, rate)
            most = math.min(most, math.floor((NOW + $ROUNDED - bases[queue]) / rate.every) + 1)
        end
        left[queue] = most
        return most
    end})
end

-- Look at the first job that is left in a line, which is read by pages that grow.
local function look(line)
    if line.at > #line.jobs then
        line.jobs = call('ZRANGE', line.key, line.read, line.read + line.page - 1, 'WITHSCORES')
        line.read = line.read + line.page
        line.page = math.min(2 * line.page, 1000)
        line.at = 1
    end
    line.id, line.rank = line.jobs[line.at], tonumber(line.jobs[line.at + 1])
    return line.id
end

local LINES = 100 -- so many are read of the index in one go

local paused = {} -- queues

-- Open a line, unless its queue is paused or full. One that is in the index and has no job leaves that.
local function open_line(cell, left, page)
    local queue = parts_of(cell)
    if paused[queue] or left[queue] <= 0 then
        return
    end
    local line = {cell = cell, queue = queue, key = PREFIX .. 'line:' .. cell, jobs = {}, at = 1, read = 0, page = page}
    if look(line) then
        put_in(line)
    else
        change_line(cell)
    end
end

local function size_of(set)
    local size = 0
    for _ in pairs(set) do
        size = size + 1
    end
    return size
end

-- Open the lines in which the next job may be: those that are wanted, where they are named and fewer than there are;
-- else one by one, in the order of their first jobs. Returns what opens more, as long as they come before the first job.
local function open_lines(room, left, executors, limit)
    local most = call('ZCARD', PREFIX .. 'lines')
    local is_named = room and executors and not getmetatable(room)
    local named = is_named and size_of(room) * size_of(executors) or math.huge
    -- More are read as they are needed; the largest numbers would be written with an exponent.
    local page = math.max(1, math.min(1000, math.ceil(limit / math.max(1, math.min(most, named)))))
    heap = {}
    if named < most then
        for queue in pairs(room) do
            for executor in pairs(executors) do
                open_line(cell_of(queue, executor), left, page)
            end
        end
        return function() end
    end
    local index, at, read = {}, 1, 0
    return function()
        while read < most or at < #index do
            if at > #index then
                index, at = call('ZRANGE', PREFIX .. 'lines', read, read + LINES - 1, 'WITHSCORES'), 1
                read = read + LINES
            end
            if #heap > 0 and heap[1].rank < tonumber(index[at + 1]) then
                return
            end
            local _, executor = parts_of(index[at])
            if not executors or executors[executor] then
                open_line(index[at], left, page)
            end
            at = at + 2
        end
    end
end

-- Start one job, if it is there to be started; return its row, as that has left it. Else it leaves the line all the
-- same: one that has expired stays queued until `advance` has made it fail.
local function start(line, claim, lease_until, worker, session)
    local id = line.id
    local row = fields_of(id, $FIELDS, 'moved', 'expires', 'cell')
    local moved, expires, cell = row[$COUNT + 1], row[$COUNT + 2], cell_in(id, row[$COUNT + 3])
    change_line(line.cell)
    drop(line.key, id)
    if row[$state] ~= 'QUEUED' or cell ~= line.cell then
        return nil
    end
    local attempt = count(row[$attempt])
    if number(expires) and (attempt or 0) == 0 then
        if number(expires) <= NOW then
            add_time(PREFIX .. 'expiry', number(expires), id)
            return nil
        end
        drop(PREFIX .. 'expiry', id)
    end
    local job = {
        state = 'QUEUED', cell = cell, order = count(row[$order], 0), moved = moved, history = row[$history] or '',
        attempt = string.format('%.0f', attempt and attempt + 1 or 0),
    }
    -- A number that can't be read stays what it is: who is given the job can't read it either, and has it fail.
    local written = attempt and job.attempt or row[$attempt] or ''
    move(id, job, 'RUNNING', worker, 'null', 'attempt', written, 'claim', claim, 'session', session)
    add_time(PREFIX .. 'leases', lease_until, id)
    row[$state], row[$attempt], row[$claim], row[$history] = 'RUNNING', written, claim, job.history
    row[$COUNT + 1], row[$COUNT + 2], row[$COUNT + 3] = id, nil, nil
    return row
end

-- Jobs that are passed over in one call: where very many have expired, others are answered in between.
local PASSED = 500

local function work(args)
    local claim, limit, lease, worker, session, most, answered = unpack(args, 1, 7)
    limit, most = tonumber(limit), tonumber(most)
    local before = claimed_before(claim)
    if #before > 0 then
        return {0, 0, before, NOW_TEXT}
    end
    local room, executors, totals, patterns, rates, index
    room, index = read_list(args, 8, 2)
    executors, index = read_list(args, index, 1)
    totals, index = read_list(args, index, 2)
    patterns, index = add_patterns(room, args, index, 2)
    patterns, index = add_patterns(totals, args, index, 2)
    rates, index = read_list(args, index, 3)
    add_patterns(rates, args, index, 3)
    if answered ~= '' then
        call('UNLINK', PREFIX .. 'claim:' .. answered)
    end
    paused = {}
    for _, queue in ipairs(call('ZRANGE', PREFIX .. 'pauses', '(' .. NOW_TEXT, '+inf', 'BYSCORE')) do
        paused[queue] = true
    end
    call('ZCARD', PREFIX .. 'leases') -- nothing is started where somebody has put something else in their place
    if rates then
        call('ZREMRANGEBYSCORE', PREFIX .. 'rates', '-inf', string.format('%.6f', NOW - $PERIOD)) -- likewise
    end
    local bases = {}
    local left = room_left(room, totals, rates, bases)
    local open_more = open_lines(room, left, executors, limit)

    local rows, ids, size, passed, lease_until = {}, {}, 0, 0, in_seconds(tonumber(lease))
    local started = {} -- queues whose starts are limited
    while #rows < limit and size < most and passed < PASSED do
        open_more()
        local line = heap[1]
        if not line then
            break
        end
        if left[line.queue] <= 0 then
            drop_first()
        else
            if totals and totals[line.queue] then
                note_limit(line.queue, patterns[line.queue])
            end
            local row = start(line, claim, lease_until, worker, session)
            if row then
                rows[#rows + 1] = row
                ids[#ids + 1] = line.id
                size = size + size_of_row(row)
                left[line.queue] = left[line.queue] - 1
                if bases[line.queue] then
                    bases[line.queue] = bases[line.queue] + rates[line.queue].every
                    started[line.queue] = true
                end
            else
                passed = passed + 1
            end
            line.at = line.at + 2
            if look(line) then
                sift_down(1)
            else
                drop_first()
            end
        end
    end
    for queue in pairs(started) do
        call('ZADD', PREFIX .. 'rates', string.format('%.6f', bases[queue]), queue)
    end
    if #ids > 0 then
        local key = PREFIX .. 'claim:' .. claim
        in_parts('RPUSH', key, ids)
        call('PEXPIRE', key, string.format('%.0f', math.min(lease + 60, 1e12) * 1000)) -- it counts no further than that
    end
    settle() -- also for another call in this script: what runs is counted by the sets
    return {1, (size >= most or passed >= PASSED) and 1 or 0, rows, NOW_TEXT}
end
