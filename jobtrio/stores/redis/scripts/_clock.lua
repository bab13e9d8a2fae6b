-- The server's time, the same all through a script; and telling others.
local clock = call('TIME')
local NOW = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local NOW_TEXT = clock[1] .. '.' .. string.format('%06d', clock[2])

-- A time from now; what is further away than numbers are counted with, never comes in any case.
local function in_seconds(seconds)
    return string.format('%.6f', NOW + math.min(seconds, 2 ^ 52))
end

local function hint(text)
    call('SPUBLISH', PREFIX .. 'hints', text)
end
