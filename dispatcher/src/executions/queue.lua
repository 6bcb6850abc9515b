-- The ready queue, one atomic step per call; queue.rs says what the keys mean.
-- KEYS[1] the prefix of all keys; ARGV[1] the step; ARGV[2...] its arguments.
local prefix = KEYS[1]
local step = ARGV[1]

-- Units of a workspace's own clock that one turn of a class costs, by priority 0 to 3.
local COST = { ["0"] = 8, ["1"] = 4, ["2"] = 2, ["3"] = 1 }
-- Workspaces that a position looks at; behind more the answer is "at least".
local MAX_RIVALS = 1000
-- Broken entries that one pop may step over.
local MAX_SKIPS = 16

local members = prefix .. "members"
local vtimes = prefix .. "vtime"
local clock = prefix .. "clock"
local marker = prefix .. "marker"

local function active(kind) return prefix .. "active:" .. kind end
local function entries(kind, ws) return prefix .. "entries:" .. kind .. ":" .. ws end
local function classes(kind, ws) return prefix .. "classes:" .. kind .. ":" .. ws end
local function number(value) return tonumber(value or "0") or 0 end
local function now() return number(redis.call("GET", clock)) end

-- Members sort by tag, then by text: padding makes equal tags first come, first served.
local function padded(id) return string.rep("0", 19 - #id) .. id end
local function bare(member) return (string.gsub(member, "^0+", "")) end

local function vtime(ws)
    return math.max(number(redis.call("HGET", vtimes, ws)), now())
end

-- Offers a workspace's entries of one kind to workers.
local function activate(kind, ws)
    if redis.call("EXISTS", entries(kind, ws)) == 0 then return 0 end
    local time = vtime(ws)
    redis.call("HSET", vtimes, ws, time)
    redis.call("ZADD", active(kind), time, ws)
    return 1
end

-- Forgets a kind of a workspace that has no entries left.
local function settle(kind, ws)
    if redis.call("EXISTS", entries(kind, ws)) == 0 then
        redis.call("ZREM", active(kind), ws)
        redis.call("DEL", classes(kind, ws))
    end
end

-- push: (id kind ws priority again parked)*; answers how many were new.
if step == "push" then
    local new = 0
    for i = 2, #ARGV, 6 do
        local id, kind, ws, priority = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
        local again, parked = ARGV[i + 4] == "1", ARGV[i + 5] == "1"
        if redis.call("HEXISTS", members, id) == 0 then
            local own = classes(kind, ws)
            local tag = number(redis.call("HGET", own, "clock"))
            if not again then
                tag = math.max(tag, number(redis.call("HGET", own, priority))) + COST[priority]
                redis.call("HSET", own, priority, tag)
            end
            redis.call("ZADD", entries(kind, ws), tag, padded(id))
            redis.call("HSET", members, id, kind .. " " .. ws)
            new = new + 1
        end
        if not parked and not redis.call("ZSCORE", active(kind), ws) then activate(kind, ws) end
    end
    return new
end

-- pop: every kind, "|", offered kinds; answers {id, kind, ws, tag}, {} or {"lost"}.
if step == "pop" then
    local all, offered, list = {}, {}, nil
    for i = 2, #ARGV do
        if ARGV[i] == "|" then list = offered else table.insert(list or all, ARGV[i]) end
    end
    if redis.call("EXISTS", marker) == 0 then return { "lost" } end
    for _ = 1, MAX_SKIPS do
        local kind, ws, least
        for _, candidate in ipairs(offered) do
            local first = redis.call("ZRANGE", active(candidate), 0, 0, "WITHSCORES")
            if first[1] and (not least or number(first[2]) < least) then
                kind, ws, least = candidate, first[1], number(first[2])
            end
        end
        if not kind then return {} end
        local entry = redis.call("ZPOPMIN", entries(kind, ws))
        settle(kind, ws)
        if entry[1] then
            local id, tag = bare(entry[1]), entry[2]
            redis.call("HDEL", members, id)
            if redis.call("EXISTS", classes(kind, ws)) == 1 then
                redis.call("HSET", classes(kind, ws), "clock", tag)
            end
            local start = math.max(least, now())
            redis.call("SET", clock, start)
            redis.call("HSET", vtimes, ws, start + 1)
            for _, each in ipairs(all) do
                redis.call("ZADD", active(each), "XX", start + 1, ws)
            end
            return { id, kind, ws, tag }
        end
    end
    return {}
end

-- park: every kind, "|", id kind ws tag: puts a popped entry back in its place, gives its
-- turn back, and offers nothing of the workspace until it is unparked.
if step == "park" then
    local all, i = {}, 2
    while ARGV[i] ~= "|" do table.insert(all, ARGV[i]); i = i + 1 end
    local id, kind, ws, tag = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    redis.call("ZADD", entries(kind, ws), tag, padded(id))
    redis.call("HSET", members, id, kind .. " " .. ws)
    if redis.call("EXISTS", classes(kind, ws)) == 0 then
        redis.call("HSET", classes(kind, ws), "clock", tag)
    end
    redis.call("HINCRBY", vtimes, ws, -1)
    for _, each in ipairs(all) do redis.call("ZREM", active(each), ws) end
    return 1
end

-- unpark: ws, then every kind; answers the kinds that have work of it again.
if step == "unpark" then
    local back = {}
    for i = 3, #ARGV do
        if not redis.call("ZSCORE", active(ARGV[i]), ARGV[2]) and activate(ARGV[i], ARGV[2]) == 1 then
            table.insert(back, ARGV[i])
        end
    end
    return back
end

-- remove: id.
if step == "remove" then
    local place = redis.call("HGET", members, ARGV[2])
    if not place then return 0 end
    local kind, ws = string.match(place, "^(%S+) (%S+)$")
    redis.call("HDEL", members, ARGV[2])
    redis.call("ZREM", entries(kind, ws), padded(ARGV[2]))
    settle(kind, ws)
    return 1
end

-- position: id, kind, ws: turns before this execution's, or before a newcomer's if the id is
-- not queued. The fair order is played forward: of each rival those turns count whose
-- virtual start lies before ours; equal starts go by the rival's name.
if step == "position" then
    local id, kind, ws = ARGV[2], ARGV[3], ARGV[4]
    local rank = redis.call("ZRANK", entries(kind, ws), padded(id))
    rank = rank or redis.call("ZCARD", entries(kind, ws))
    local ours = number(redis.call("ZSCORE", active(kind), ws) or vtime(ws)) + rank
    local before = rank
    local rivals = redis.call("ZRANGE", active(kind), 0, MAX_RIVALS - 1, "WITHSCORES")
    for i = 1, #rivals, 2 do
        local rival, start = rivals[i], number(rivals[i + 1])
        if rival ~= ws then
            local turns = ours - start + (rival < ws and 1 or 0)
            if turns > 0 then
                before = before + math.min(turns, redis.call("ZCARD", entries(kind, rival)))
            end
        end
    end
    return before
end

-- mark: after everything eligible was pushed, says that this queue is whole.
if step == "mark" then
    redis.call("SET", marker, 1)
    return 1
end

return redis.error_reply("unknown step " .. tostring(step))
