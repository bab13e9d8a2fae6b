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

local function heapify()
    for n = math.floor(#heap / 2), 1, -1 do
        sift_down(n)
    end
end

local function drop_first()
    heap[1] = heap[#heap]
    heap[#heap] = nil
    if #heap > 0 then
        sift_down(1)
    end
end
