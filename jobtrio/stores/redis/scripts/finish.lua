-- End a running job, after appending its last messages. A request to cancel that was accepted wins.
-- Arguments: id, claim, attempt, worker, messages to keep, state, reason, error, result, runs of messages.
-- Returns nothing where the claim does not hold the job; the time where it has ended as asked; else whether it was done just now, and the row.
-- with: base clock sets moves messages
local function work(args)
    local state, reason, error, result = unpack(args, 6, 9)
    local job, answer = leave_attempt(args, 10, error)
    if not job then
        return answer
    end
    end_job(args[1], job, state, args[4], reason, error, result)
    return job.moved
end
