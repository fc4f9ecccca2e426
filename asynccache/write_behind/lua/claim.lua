-- Makes a worker the owner of a partition, or renews that, if nobody else is. Safe to repeat.
-- KEYS  owner
-- ARGV  worker, lease_ms
-- reply 1 | 0 if another one owns it
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
