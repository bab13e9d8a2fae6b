-- Keep a value for the job's next attempt, unless the same session has saved a later one: what a network that was cut
-- delivers late is not to undo what was answered since.
-- Arguments: id, claim, attempt, the session, the number of this call in it, the value. Returns whether the claim holds
-- the job.
-- with: base sets
local function work(args)
    local id, session, number = args[1], args[4], args[5]
    local found = fields_of(id, 'state', 'claim', 'attempt', 'saver')
    if found[1] ~= 'RUNNING' or found[2] ~= args[2] or found[3] ~= args[3] then
        return 0
    end
    local saver, last = string.match(found[4] or '', '^(.*):(%d+)$')
    if saver ~= session or tonumber(last) <= tonumber(number) then
        call('HSET', job_key(id), 'saved', args[6], 'saver', session .. ':' .. number)
    end
    return 1
end
