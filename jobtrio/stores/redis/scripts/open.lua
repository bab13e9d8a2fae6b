-- Check what is under the prefix, and make it this store's own if nothing is there.
-- Arguments: this version, and whether to make it. Returns the version found, or nothing where something else is
-- there, or 0 where nothing is and it is not to be made.
-- with: base clock sets
local KINDS = {
    version = 'string', number = 'string', keys = 'hash', all = 'zset', cells = 'set', lines = 'zset', due = 'zset',
    expiry = 'zset', leases = 'zset', ended = 'zset', limited = 'set', pauses = 'zset', rates = 'zset', workers = 'zset',
    sessions = 'hash',
}

local function work(args)
    call('SPUBLISH', PREFIX .. 'open', '') -- nobody listens; who may not publish learns it now, and not with each change
    local others = 0
    for name, kind in pairs(KINDS) do
        local found = call('TYPE', PREFIX .. name).ok
        if found ~= 'none' and found ~= kind then
            return false
        end
        if found ~= 'none' and name ~= 'version' then
            others = others + 1
        end
    end
    local version = call('GET', PREFIX .. 'version')
    if version == args[1] then
        call('SET', PREFIX .. 'version', version) -- a write: WAIT asks for all up to the connection's own last one
        if call('TYPE', PREFIX .. 'paused').ok == 'set' then -- of a version that knew of no end of a pause
            for _, queue in ipairs(call('SMEMBERS', PREFIX .. 'paused')) do
                call('ZADD', PREFIX .. 'pauses', '+inf', queue)
            end
            call('UNLINK', PREFIX .. 'paused')
        end
    end
    if version or others > 0 then
        return version
    end
    if args[2] ~= '1' then
        return 0
    end
    call('SET', PREFIX .. 'version', args[1])
    return args[1]
end
