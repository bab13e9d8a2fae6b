-- Return a running job to its queue unfinished, after appending its last messages. A request to cancel wins.
-- Arguments: id, claim, attempt, worker, messages to keep, reason, the `Restart`, runs of messages.
-- Returns nothing where the claim does not hold the job, else whether it was done just now, and the row.
-- with: base clock sets moves messages
local function work(args)
    local id, worker, keep, reason, restarting = args[1], unpack(args, 4, 7)
    local job, answer = leave_attempt(args, 8, '')
    if not job then
        return answer
    end
    leave(id, job)
    become_ready(id, job, worker, reason, 'losses', '0')
    restart(id, job, keep, restarting)
    return {1, row_of(id)}
end
