-- Remove an ended job.
-- Arguments: id. Returns 1, or 0 for an unknown job, or the state of one that lives.
-- with: base clock sets moves removing
local function work(args)
    local state = fields_of(args[1], 'state')[1]
    if not state then
        return 0
    end
    if LIVING[state] then
        return state
    end
    remove(args[1])
    forget_cells()
    return 1
end
