-- Carry out the calls that were gathered: each behind the number of its arguments. One that fails harms no other.
local replies, index = {}, 1
while index <= #ARGV do
    local count = tonumber(ARGV[index])
    local args = {}
    for n = 1, count do
        args[n] = ARGV[index + n]
    end
    index = index + count + 1
    gathered = {}
    local made = #making
    local done, reply = pcall(work, args)
    if not done then
        take_back(made)
    end
    if not done and type(reply) ~= 'table' then
        reply = {err = 'ERR ' .. tostring(reply)}
    end
    replies[#replies + 1] = reply or false
end
settle()
return replies
