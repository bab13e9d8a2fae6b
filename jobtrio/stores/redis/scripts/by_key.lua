-- Find the job that has a key.
-- Arguments: the key. Returns its row, or nothing.
-- with: base sets
local function work(args)
    local id = call('HGET', PREFIX .. 'keys', args[1])
    return id and row_of(id)
end
