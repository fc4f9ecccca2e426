-- A row was written in the database itself. Readers who looked before that must look again, as after an acknowledgement.
-- KEYS  batch, meta (and in their slot batch:n, the buckets)
-- ARGV  field, its bucket
-- reply 1 if the frozen batch holds the key, too: until it is acknowledged, readers see what it says | 0
redis.call('HINCRBY', KEYS[2], 'acks', 1)
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 1 end
return redis.call('HEXISTS', KEYS[1] .. ':' .. ARGV[2], ARGV[1])
