-- A token bucket. KEYS[1] the bucket; ARGV: capacity, tokens per millisecond, how many are wanted.
-- Answers: how many were granted, how many whole ones are left, milliseconds until the next one.
local capacity, rate, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stored = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(stored[1]) or capacity
local at = tonumber(stored[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - at) * rate)
local granted = math.min(want, math.floor(tokens))
tokens = tokens - granted
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', now)
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity / rate))
local wait = 0
if tokens < 1 then wait = math.ceil((1 - tokens) / rate) end
return {granted, math.floor(tokens), wait}
