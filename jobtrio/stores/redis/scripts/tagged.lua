-- Count jobs that have tags, some at a time.
-- Arguments: the number behind which to look, how many to look at, the tags as JSON.
-- Returns the number to go on behind, or '' where there are no more; then rows: a queue, and how many are in each state.
-- with: base sets looking
local STATES = {$STATES}

local is_state = {}
for _, state in ipairs(STATES) do
    is_state[state] = true
end

-- Count a job, unless it is gone. One in a state that nobody knows is told to have failed.
local function count_in(cells, id)
    looks = looks + 1
    local state, cell = unpack(fields_of(id, 'state', 'cell'))
    if state then
        cell = cells[cell] and cell or cell_in(id, cell)
        state = is_state[state] and state or 'FAILED'
        cells[cell] = cells[cell] or {}
        cells[cell][state] = (cells[cell][state] or 0) + 1
    end
end

local function work(args)
    if looks >= LOOKS then
        return {args[1]}
    end
    local order, most = order_of(args[1], false), tonumber(args[2])
    local keys = tag_sets(args[3], order)
    local candidates = order.first(table.remove(keys, 1), most)
    local more = #candidates >= 2 * most

    local before = looks -- what was looked into so far is not to cut this short, or it would be for little
    local cells, last = {}, ''
    for n = 1, #candidates, 2 do
        if has_tags(candidates[n], keys) then
            count_in(cells, candidates[n])
        end
        last = candidates[n + 1]
        if looks - before >= LOOKS then
            more = true
            break
        end
    end

    local answer = {more and last or ''}
    for cell, counts in pairs(cells) do
        local row = {(parts_of(cell))}
        for n, state in ipairs(STATES) do
            row[n + 1] = counts[state] or 0
        end
        answer[#answer + 1] = row
    end
    return answer
end
