-- Count the jobs of each queue and executor.
-- Returns, for each: queue, executor, and how many are in each state.
-- with: base sets
local STATES = {$STATES}

local function work()
    local rows = {}
    for n, cell in ipairs(call('SMEMBERS', PREFIX .. 'cells')) do
        local queue, executor = parts_of(cell)
        local row = {queue, executor}
        for _, state in ipairs(STATES) do
            row[#row + 1] = call('ZCARD', cell_key(state, cell))
        end
        rows[n] = row
    end
    return rows
end
