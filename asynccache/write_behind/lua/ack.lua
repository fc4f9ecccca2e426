-- Drops a batch that the database has, if it is still this one.
-- KEYS  batch, meta
-- ARGV  id
-- reply 1 | 0 if it was another one, or none
if redis.call('HGET', KEYS[2], 'batch') ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('HDEL', KEYS[2], 'batch', 'frozen')
redis.call('HINCRBY', KEYS[2], 'acks', 1)
return 1
