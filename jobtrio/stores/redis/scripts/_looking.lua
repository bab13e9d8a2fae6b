-- Going through the jobs behind a number, in order, and those that have tags.
local LOOKS = 10000 -- into jobs and sets, by all calls, behind which those that are left are put off
local looks = 0

-- What is behind a number, in the order that is asked for.
local function order_of(number, newest_first)
    local behind = '(' .. number
    local order = {sign = newest_first and -1 or 1}
    function order.count(key)
        looks = looks + 1
        if newest_first then
            return call('ZCOUNT', key, '-inf', behind)
        end
        return call('ZCOUNT', key, behind, '+inf')
    end
    function order.first(key, most)
        looks = looks + 1
        if newest_first then
            return call('ZRANGE', key, behind, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, most, 'WITHSCORES')
        end
        return call('ZRANGE', key, behind, '+inf', 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
    end
    return order
end

-- The sets of the tags, the smallest first, and its size; without tags that of all jobs.
local function tag_sets(tags, order)
    local keys, fewest = {}, math.huge
    if tags == '' then
        fewest = order.count(PREFIX .. 'all')
    else
        for name, value in pairs(cjson.decode(tags)) do
            local key = tag_key(name, value)
            local count = order.count(key)
            keys[#keys + 1] = key
            if count < fewest then
                fewest = count
                keys[1], keys[#keys] = key, keys[1]
            end
        end
    end
    return keys, fewest
end

-- Whether a job is in all of some sets of tags.
local function has_tags(id, keys)
    for _, key in ipairs(keys) do
        looks = looks + 1
        if not call('ZSCORE', key, id) then
            return false
        end
    end
    return true
end
