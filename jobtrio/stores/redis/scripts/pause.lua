-- Have no claim start a job of a queue, until a time at least.
-- Arguments: the queue, and the seconds until then.
-- with: base clock sets
local function work(args)
    be_ours()
    local seconds = tonumber(args[2])
    local is_for_good = seconds == math.huge
    call('ZADD', PREFIX .. 'pauses', 'GT', is_for_good and '+inf' or in_seconds(seconds), args[1])
    if not is_for_good then
        hint('due:' .. string.format('%.3f', seconds))
    end
    return 1
end
