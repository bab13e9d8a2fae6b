-- Find jobs, the oldest first or the newest.
-- Arguments: the number behind which to look, how many at most, how many to look at, queue, executor, states with
-- commas between ('' for any of these), tags as JSON ('' for none), whether the newest come first ('' for no).
-- Returns the ids, and the number to go on behind, or '' where there are no more.
-- with: base sets looking
local STATES = {$STATES}

-- What is looked for, besides tags.
local function filter_of(queue, executor, states)
    local wanted, is_wanted = {}, {}
    for state in string.gmatch(states, '[%u-]+') do
        wanted[#wanted + 1] = state
    end
    if states == '' then
        wanted = STATES
    end
    for _, state in ipairs(wanted) do
        is_wanted[state] = true
    end
    local filter = {states = wanted, is_empty = queue == '' and executor == '' and states == ''}
    local start = queue == '' and '' or cell_of(queue, '')
    function filter.takes_cell(cell)
        if string.sub(cell, 1, #start) ~= start then
            return false
        end
        return executor == '' or select(2, parts_of(cell)) == executor
    end
    function filter.takes(id)
        looks = looks + 1
        local found = fields_of(id, 'state', 'cell')
        return found[1] and is_wanted[found[1]] and filter.takes_cell(found[2] or '')
    end
    return filter
end

-- The cells: looked up once for all calls.
local cells
local function all_cells()
    cells = cells or call('SMEMBERS', PREFIX .. 'cells')
    return cells
end

-- The sets of the cells that a filter takes, and their size together; nothing where they are more than so many: of
-- each the next job would have to be looked at.
local function cell_sets(filter, order, most)
    local keys, size = {}, 0
    looks = looks + #all_cells() / 5 -- to pass over one takes about that share of a look
    for _, cell in ipairs(all_cells()) do
        if filter.takes_cell(cell) then
            for _, state in ipairs(filter.states) do
                local key = cell_key(state, cell)
                local count = order.count(key)
                if count > 0 then
                    if #keys >= most then
                        return nil
                    end
                    keys[#keys + 1] = key
                    size = size + count
                end
            end
        end
    end
    return keys, size
end

-- A page of what several sets have, in order: ids and numbers by turns; and whether there are more.
local function merged(keys, order, page)
    local found, horizon, more = {}, math.huge, false
    for _, key in ipairs(keys) do
        local part = order.first(key, page)
        for n = 1, #part, 2 do
            found[#found + 1] = {part[n], order.sign * tonumber(part[n + 1])}
        end
        if #part >= 2 * page then
            horizon = math.min(horizon, order.sign * tonumber(part[#part])) -- nothing is known of this set behind it
            more = true
        end
    end
    table.sort(found, function(one, other) return one[2] < other[2] end)
    local candidates = {}
    for _, pair in ipairs(found) do
        if pair[2] <= horizon then
            candidates[#candidates + 1] = pair[1]
            candidates[#candidates + 1] = string.format('%.0f', order.sign * pair[2])
        end
    end
    return candidates, more
end

local function work(args)
    if looks >= LOOKS then
        return {{}, args[1]}
    end
    local limit, most, tags = tonumber(args[2]), tonumber(args[3]), args[7]
    local order = order_of(args[1], args[8] ~= '')
    local filter = filter_of(args[4], args[5], args[6])
    local tag_keys, fewest = tag_sets(tags, order)
    local cell_keys, size
    -- Fewer jobs than there are cells are looked at themselves, if one call can do that.
    if not filter.is_empty and fewest > math.min(most, call('SCARD', PREFIX .. 'cells')) then
        cell_keys, size = cell_sets(filter, order, most / 2)
    end
    local candidates, more
    local by_cells = cell_keys and fewest >= size
    if not by_cells then
        local key = tag_keys[1] or PREFIX .. 'all'
        if filter.is_empty and #tag_keys < 2 then
            most = math.min(most, limit) -- each candidate is one that is looked for
        end
        candidates = order.first(key, most)
        more = #candidates >= 2 * most
    else
        local page = math.max(math.floor(most / math.max(#cell_keys, 1)), 1)
        if #tag_keys == 0 then
            page = math.min(page, limit)
        end
        candidates, more = merged(cell_keys, order, page)
    end

    local before = looks -- what was looked into so far is not to cut this short, or it would be for little
    local function matches(id)
        return has_tags(id, tag_keys) and (filter.is_empty or by_cells or filter.takes(id))
    end
    local ids, last = {}, ''
    for n = 1, #candidates, 2 do
        if matches(candidates[n]) then
            ids[#ids + 1] = candidates[n]
        end
        last = candidates[n + 1]
        if #ids >= limit or looks - before >= LOOKS then
            return {ids, last}
        end
    end
    return {ids, more and last or ''}
end
