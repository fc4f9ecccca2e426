-- Gives a partition up. Safe to repeat.
-- KEYS  owner
-- ARGV  worker
-- reply 1 | 0 if it was not this worker's
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
