-- The workers that are there: sessions by the time until which they are, and what is said of each: when it was first
-- and last seen, and its name (JSON), with commas between.
local function drop_workers(sessions)
    for _, session in ipairs(sessions) do
        call('ZREM', PREFIX .. 'workers', session)
        call('HDEL', PREFIX .. 'sessions', session)
    end
end

local function be_there(session, worker, there_until)
    local known = call('HGET', PREFIX .. 'sessions', session)
    local first = NOW_TEXT
    if known then
        first = string.match(known, '^[^,]*')
    else
        be_ours()
        drop_workers(call('ZRANGE', PREFIX .. 'workers', '-inf', NOW, 'BYSCORE', 'LIMIT', 0, 100))
    end
    call('ZADD', PREFIX .. 'workers', there_until, session)
    call('HSET', PREFIX .. 'sessions', session, first .. ',' .. NOW_TEXT .. ',' .. worker)
end
