-- Keep a value for the job's next attempt.
-- Arguments: id, claim, attempt, the value. Returns whether the claim holds the job.
-- with: base sets
local function work(args)
    local id = args[1]
    local found = call('HMGET', job_key(id), 'state', 'claim', 'attempt')
    if found[1] ~= 'RUNNING' or found[2] ~= args[2] or found[3] ~= args[3] then
        return 0
    end
    call('HSET', job_key(id), 'saved', args[4])
    return 1
end
