-- Let a failed attempt be followed by another, after appending its last messages. A request to cancel wins.
-- Arguments: id, claim, attempt, worker, messages to keep, delay, reason, error, the `Restart`, how many
-- failures it counts as, runs of messages.
-- Returns nothing where the claim does not hold the job, else whether it was done just now, and the row.
-- with: base clock sets moves messages
local function work(args)
    local id, worker, keep, delay, reason, error, restarting, counted = args[1], unpack(args, 4, 10)
    local job, answer = leave_attempt(args, 11, error)
    if not job then
        return answer
    end
    leave(id, job)
    restart(id, job, keep, restarting)
    local failures = count(fields_of(id, 'failures')[1], 0) + tonumber(counted)
    move(id, job, 'RETRYING', worker, reason, 'error', error, 'losses', '0', 'failures', failures)
    add_time(PREFIX .. 'due', in_seconds(tonumber(delay)), id)
    return {1, row_of(id)}
end
