-- Read a job's messages behind a number.
-- Arguments: id, the number, how many at most, bytes at most.
-- Returns nothing for an unknown job; else what entries of its stream have, id and body each, and, where the last is
-- among them and the job has ended, what tells the outcome (state, error, result, history) and the `End`'s number.
-- with: base sets
local LITTLE = 1 / 128 -- of as much as one call may get
local total = 0 -- bytes found for the calls so far: behind much of it, each gets little, or one entry

local function work(args)
    local id, after, limit, most = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
    local found = fields_of(id, 'state', 'last')
    if not found[1] then
        return false
    end
    local last = last_of(id, found[2])
    local entries, read, size = {}, after, 0
    local start, stop = string.format('%.0f-0', after + 1), string.format('%.0f', last)
    local page = 8
    if total >= most then
        page, most = 1, LITTLE * most
    end
    while read < last and read - after < limit and size < most do
        local part = redis.pcall('XRANGE', stream_key(id), start, stop, 'COUNT', page)
        if is_foreign(part) then
            part = {}
        end
        for _, entry in ipairs(part) do
            entries[#entries + 1] = {entry[1], entry[2][2]}
            size = size + #entry[2][2]
            read = tonumber(string.match(entry[1], '^%d+'))
            start = '(' .. entry[1]
        end
        if #part < page then
            read = last -- there is no more: what should be behind has been taken out from outside
            break
        end
    end
    total = total + size
    local ending = false
    if after <= last and read >= last and not LIVING[found[1]] then
        ending = call('HMGET', job_key(id), 'state', 'error', 'result', 'history')
        ending[5] = string.format('%.0f', last + 1)
    end
    return {entries, ending}
end
