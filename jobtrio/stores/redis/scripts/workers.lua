-- Tell which workers are there.
-- Returns, for each: when it was first and last seen and its name (JSON), with commas between; how many jobs it runs.
-- with: base clock sets
local function work()
    local running = {}
    for _, id in ipairs(call('ZRANGE', PREFIX .. 'leases', 0, -1)) do
        local session = fields_of(id, 'session')[1]
        if session then
            running[session] = (running[session] or 0) + 1
        end
    end
    local rows = {}
    for _, session in ipairs(call('ZRANGE', PREFIX .. 'workers', NOW, '+inf', 'BYSCORE')) do
        rows[#rows + 1] = {call('HGET', PREFIX .. 'sessions', session), running[session] or 0}
    end
    return rows
end
