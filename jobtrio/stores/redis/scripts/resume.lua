-- Have claims start jobs of a queue again.
-- Arguments: the queue.
-- with: base clock sets
local function work(args)
    call('ZREM', PREFIX .. 'pauses', args[1])
    hint('work')
    return 1
end
