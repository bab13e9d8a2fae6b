-- Tell which queues have jobs ready and could not start one at a moment, and how far it is to when they may.
-- Arguments: the moment. Returns queues, and behind each the seconds.
-- with: base clock sets
local SOME = 1000 -- queues looked up in one go

local function work(args)
    local moment, is_known, queues, rows = tonumber(args[1]), {}, {}, {}
    for _, queue in ipairs(call('ZRANGE', PREFIX .. 'pauses', '(' .. NOW_TEXT, '+inf', 'BYSCORE')) do
        is_known[queue] = true
    end
    for _, cell in ipairs(call('ZRANGE', PREFIX .. 'lines', 0, -1)) do
        local queue = parts_of(cell)
        if not is_known[queue] then
            is_known[queue] = true
            queues[#queues + 1] = queue
        end
    end
    for first = 1, #queues, SOME do
        local last = math.min(first + SOME - 1, #queues)
        for n, found in ipairs(call('ZMSCORE', PREFIX .. 'rates', unpack(queues, first, last))) do
            local next_at = tonumber(found or nil)
            if next_at and next_at > moment then
                rows[#rows + 1] = queues[first + n - 1]
                rows[#rows + 1] = string.format('%.6f', next_at - NOW)
            end
        end
    end
    return rows
end
