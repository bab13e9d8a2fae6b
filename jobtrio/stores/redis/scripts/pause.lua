-- Have no claim start a job of a queue.
-- Arguments: the queue.
-- with: base clock sets
local function work(args)
    be_ours()
    call('SADD', PREFIX .. 'paused', args[1])
    return 1
end
