-- Tell which queues have jobs ready and could not start one at a moment, and how far it is to when they may.
-- Arguments: the moment. Returns queues, and behind each the seconds.
-- with: base clock sets
local MOST = 1000 -- the first ones

local function work(args)
    local found = call('ZRANGE', PREFIX .. 'rates', '(' .. args[1], '+inf', 'BYSCORE', 'LIMIT', 0, MOST, 'WITHSCORES')
    local is_ready, rows = {}, {}
    if #found > 0 then
        for _, cell in ipairs(call('ZRANGE', PREFIX .. 'lines', 0, -1)) do
            is_ready[parts_of(cell)] = true
        end
        for _, queue in ipairs(call('SMEMBERS', PREFIX .. 'paused')) do
            is_ready[queue] = nil
        end
    end
    for n = 1, #found, 2 do
        if is_ready[found[n]] then
            rows[#rows + 1] = found[n]
            rows[#rows + 1] = string.format('%.6f', tonumber(found[n + 1]) - NOW)
        end
    end
    return rows
end
