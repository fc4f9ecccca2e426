-- Drops a batch that the database has, if it is still this one, and empties cells, as a write does: which takes any
-- reader's lease away, too.
-- KEYS  batch, meta, cells (and in their slot batch:n, the buckets)
-- ARGV  id
-- reply 1 | 0 if it was another one, or none
local state = redis.call('HMGET', KEYS[2], 'batch', 'parts')
if state[1] ~= ARGV[1] then return 0 end
for part in string.gmatch(state[2] or '0', '%d+') do
  redis.call('UNLINK', part == '0' and KEYS[1] or KEYS[1] .. ':' .. part)
end
redis.call('HDEL', KEYS[2], 'batch', 'frozen', 'parts')
redis.call('HINCRBY', KEYS[2], 'acks', 1)
for at = 3, #KEYS do redis.call('UNLINK', KEYS[at]) end
return 1
