-- Tell which queues are paused.
-- Returns their names.
-- with: base sets
local function work()
    return call('SMEMBERS', PREFIX .. 'paused')
end
