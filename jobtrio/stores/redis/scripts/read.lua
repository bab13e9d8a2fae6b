-- Read a job's messages behind a number.
-- Arguments: id, the number, how many at most, bytes at most.
-- Returns nothing for an unknown job; else what entries of its stream have, id and body each, and, where the last is
-- among them and the job has ended, what tells the outcome (state, error, result, history) and the `End`'s number.
-- with: base sets
local FINAL = {COMPLETED = true, FAILED = true, CANCELLED = true}

local function work(args)
    local id, after, limit, most = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
    local found = call('HMGET', job_key(id), 'state', 'last')
    if not found[1] then
        return false
    end
    local last = tonumber(found[2])
    local entries, read, size = {}, after, 0
    local start = string.format('%.0f-0', after + 1)
    while read < last and read - after < limit and size < most do
        local part = call('XRANGE', stream_key(id), start, '+', 'COUNT', 8)
        for _, entry in ipairs(part) do
            entries[#entries + 1] = {entry[1], entry[2][2]}
            size = size + #entry[2][2]
            read = tonumber(string.match(entry[1], '^%d+'))
            start = '(' .. entry[1]
        end
        if #part < 8 then
            read = last -- there is no more: what should be behind has been taken out from outside
            break
        end
    end
    local ending = false
    if after <= last and read >= last and FINAL[found[1]] then
        ending = call('HMGET', job_key(id), 'state', 'error', 'result', 'history')
        ending[5] = string.format('%.0f', last + 1)
    end
    return {entries, ending}
end
