-- Says that a worker lives, and who else does. Safe to repeat.
-- KEYS  workers (sorted set: worker -> server milliseconds until which it counts as alive)
-- ARGV  worker, lease_ms (0: it leaves)
-- reply { worker, ... }: who is alive, sorted by name
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local live, last = {}, 0
local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for at = 1, #found, 2 do
  live[#live + 1] = found[at]
  last = math.max(last, tonumber(found[at + 1]))
end
if last > 0 then redis.call('PEXPIREAT', KEYS[1], last) end -- nobody is left to tidy up after the last one
table.sort(live)
return live
