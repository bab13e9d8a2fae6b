-- Taking out all of ended jobs. `forget_cells` follows, once for all of them; or where the only job of a cell has left it.
local STATES = {$STATES}
local left = {}

-- Returns how many tags it had.
local function remove(id)
    local found = fields_of(id, 'cell', 'state', 'key', 'tags')
    if LIVING[found[2]] then
        drop(PREFIX .. 'ended', id) -- somebody else has put it there
        return 0
    end
    local cell = cell_in(id, found[1])
    call('UNLINK', job_key(id), stream_key(id))
    drop(PREFIX .. 'all', id)
    drop(PREFIX .. 'ended', id)
    if not found[2] then
        return 0
    end
    drop(cell_key(found[2], cell), id)
    if found[3] and call('HGET', PREFIX .. 'keys', found[3]) == id then -- else somebody else has written it
        call('HDEL', PREFIX .. 'keys', found[3])
    end
    local dropped, is_read, tags = 0, pcall(cjson.decode, found[4] or '{}')
    for name, value in pairs(is_read and type(tags) == 'table' and tags or {}) do
        if type(name) == 'string' and type(value) == 'string' then -- else somebody else has written it
            drop(tag_key(name, value), id)
            dropped = dropped + 1
        end
    end
    left[cell] = true
    return dropped
end

local function forget_cells()
    settle()
    for cell in pairs(left) do
        local keys = {}
        for n, state in ipairs(STATES) do
            keys[n] = cell_key(state, cell)
        end
        if call('EXISTS', unpack(keys)) == 0 then
            call('SREM', PREFIX .. 'cells', cell)
        end
    end
    left = {}
end
