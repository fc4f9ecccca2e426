-- Drops a batch that the database has, if it is still this one, and empties cells, as a write does: which takes any
-- reader's lease away, too.
-- KEYS  batch, meta, cells
-- ARGV  id
-- reply 1 | 0 if it was another one, or none
if redis.call('HGET', KEYS[2], 'batch') ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('HDEL', KEYS[2], 'batch', 'frozen')
redis.call('HINCRBY', KEYS[2], 'acks', 1)
for at = 3, #KEYS do redis.call('UNLINK', KEYS[at]) end
return 1
