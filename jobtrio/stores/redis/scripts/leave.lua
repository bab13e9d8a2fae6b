-- Say that a worker is not there any more.
-- Arguments: its session.
-- with: base clock sets workers
local function work(args)
    drop_workers(args)
    return 1
end
