-- Append an attempt's messages.
-- Arguments: id, claim, attempt, messages to keep, runs of messages. Returns whether the claim holds the job.
-- with: base clock sets moves messages
local function work(args)
    local id = args[1]
    local found = fields_of(id, 'state', 'claim', 'attempt', 'last')
    if found[1] ~= 'RUNNING' or found[2] ~= args[2] or found[3] ~= args[3] then
        return 0
    end
    if append(id, {last = last_of(id, found[4])}, args[4], args, 5) then
        tell_readers(id)
    end
    return 1
end
