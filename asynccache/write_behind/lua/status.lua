-- How much waits to be flushed.
-- KEYS  pending, batch, meta
-- reply { pending, in the batch, dirty since (server milliseconds, 0: not), now, id of the batch or false }
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local dirty = tonumber(redis.call('HGET', KEYS[3], 'dirty') or 0)
return { redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[2]), dirty, now, redis.call('HGET', KEYS[3], 'batch') }
