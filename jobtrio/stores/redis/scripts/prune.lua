-- Remove ended jobs that are not kept any more, a slice of them.
-- Arguments: how many are kept, for how many seconds ('inf' for no limit), how many to remove at most.
-- Returns whether there may be more, and the seconds until the oldest that is left is too old, if ever.
-- with: base clock sets removing
local TAGS = 5000 -- of the jobs removed at once, behind which no further job is

local function work(args)
    local kept, seconds, most = tonumber(args[1]), args[2], tonumber(args[3])
    local ended = PREFIX .. 'ended'
    local doomed = {}
    local beyond = math.min(call('ZCARD', ended) - kept, most)
    if beyond > 0 then
        doomed = call('ZRANGE', ended, 0, beyond - 1)
    end
    if seconds ~= 'inf' then
        local old = call('ZRANGE', ended, '-inf', NOW - tonumber(seconds), 'BYSCORE', 'LIMIT', 0, most)
        if #old > #doomed then
            doomed = old -- both begin with the oldest
        end
    end
    local removed, tags = 0, 0
    while removed < #doomed and tags < TAGS do
        removed = removed + 1
        tags = tags + remove(doomed[removed])
    end
    forget_cells()
    local oldest = call('ZRANGE', ended, 0, 0, 'WITHSCORES')[2]
    local following = ''
    if oldest and seconds ~= 'inf' then
        following = string.format('%.6f', math.max(tonumber(oldest) + tonumber(seconds) - NOW, 0))
    end
    return {(removed < #doomed or removed >= most) and 1 or 0, following}
end
