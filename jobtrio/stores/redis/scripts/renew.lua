-- Let claims last from now, and say that this worker is there for as long.
-- Arguments: the lease's seconds, the session, the worker, and of each claim: the job's id, the claim's id, the attempt.
-- Returns until when, and for each claim whether it is held, and the request to cancel if there is one.
-- with: base clock sets workers
local function renew(id, claim, attempt, session, lease_until)
    local found = fields_of(id, 'state', 'claim', 'attempt', 'cancel', 'session')
    if found[1] ~= 'RUNNING' or found[2] ~= claim or found[3] ~= attempt then
        return {0, false}
    end
    add(PREFIX .. 'leases', lease_until, id)
    if found[5] ~= session then
        call('HSET', job_key(id), 'session', session)
    end
    return {1, found[4]}
end

local function work(args)
    local session = args[2]
    local lease_until = in_seconds(tonumber(args[1]))
    be_there(session, args[3], lease_until)
    local reports = {}
    for n = 4, #args, 3 do
        reports[#reports + 1] = renew(args[n], args[n + 1], args[n + 2], session, lease_until)
    end
    return {lease_until, reports}
end
