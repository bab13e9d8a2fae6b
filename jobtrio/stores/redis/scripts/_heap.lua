-- A heap of tables, the one first whose rank is the lowest.
local heap = {}

local function sift_down(n)
    local moving = heap[n]
    while true do
        local child = 2 * n
        if child > #heap then
            break
        end
        if child < #heap and heap[child + 1].rank < heap[child].rank then
            child = child + 1
        end
        if heap[child].rank >= moving.rank then
            break
        end
        heap[n] = heap[child]
        n = child
    end
    heap[n] = moving
end

local function put_in(entry)
    local n = #heap + 1
    while n > 1 do
        local parent = math.floor(n / 2)
        if heap[parent].rank <= entry.rank then
            break
        end
        heap[n] = heap[parent]
        n = parent
    end
    heap[n] = entry
end

local function drop_first()
    heap[1] = heap[#heap]
    heap[#heap] = nil
    if #heap > 0 then
        sift_down(1)
    end
end
