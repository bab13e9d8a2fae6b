-- Tell which queues are paused.
-- Returns their names, and behind each for how many seconds more.
-- with: base clock sets
local function work()
    local found = call('ZRANGE', PREFIX .. 'pauses', '(' .. NOW_TEXT, '+inf', 'BYSCORE', 'WITHSCORES')
    for n = 2, #found, 2 do
        found[n] = string.format('%.6f', tonumber(found[n]) - NOW)
    end
    return found
end
