-- Changes of sorted sets are gathered, and made together at the end: what is to be added, by key, and what removed.
-- A job changes once in a script. Whoever reads a set that may have changed, settles first.
local adding, removing, watching = {}, {}, {}
local making = {} -- the keys of new jobs, which are taken back unless all of that is possible
local gathered = {} -- the lists to which one call has added
local moving = {} -- the cells whose lines change

local function add(key, score, id)
    local list = adding[key] or {}
    adding[key] = list
    list[#list + 1] = score
    list[#list + 1] = id
    gathered[#gathered + 1] = list
    gathered[#gathered + 1] = list
end

local function drop(key, id)
    local list = removing[key] or {}
    removing[key] = list
    list[#list + 1] = id
    gathered[#gathered + 1] = list
end

-- Add to a set of times; others are told if it comes first now.
local function add_time(key, time, id)
    add(key, time, id)
    watching[key] = true
end

-- Take back what a call has gathered that has failed, and the new jobs behind so many.
local function take_back(made)
    for _, list in ipairs(gathered) do
        list[#list] = nil
    end
    for n = #making, made + 1, -1 do
        call('UNLINK', making[n])
        making[n] = nil
    end
end

local SOME = 1000 -- arguments of one command

-- Returns the error, if there was one.
local function in_parts(command, key, list)
    local failed
    for first = 1, #list, SOME do
        local reply = redis.pcall(command, key, unpack(list, first, math.min(first + SOME - 1, #list)))
        failed = type(reply) == 'table' and reply or failed
    end
    return failed
end

-- The index of lines, which are cells with ready jobs: each has the rank of its first job. Others may have put
-- something else in its place, and then nothing is begun that changes a line. Returns whether there was a line.
local function change_line(cell)
    if moving[cell] == nil then
        moving[cell] = call('ZSCORE', PREFIX .. 'lines', cell) and true
    end
    return moving[cell]
end

local function index_line(cell)
    local first = call('ZRANGE', PREFIX .. 'line:' .. cell, 0, 0, 'WITHSCORES')
    if first[1] then
        call('ZADD', PREFIX .. 'lines', first[2], cell)
    else
        call('ZREM', PREFIX .. 'lines', cell)
    end
end

local function settle()
    local failed
    for key, list in pairs(removing) do
        failed = in_parts('ZREM', key, list) or failed
    end
    for key, list in pairs(adding) do
        failed = in_parts('ZADD', key, list) or failed
    end
    if failed then -- somebody has put something else in a set's place; all others are what they have to be
        take_back(0)
        adding, removing, watching, moving = {}, {}, {}, {}
        error(failed)
    end
    for cell in pairs(moving) do
        index_line(cell)
    end
    for key in pairs(watching) do
        local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
        local added = adding[key]
        for n = 2, #added, 2 do
            if added[n] == first[1] then
                hint('due:' .. string.format('%.3f', math.max(tonumber(first[2]) - NOW, 0)))
                break
            end
        end
    end
    adding, removing, watching, making, gathered, moving = {}, {}, {}, {}, {}, {}
end
