-- How much waits to be flushed.
-- KEYS  pending, batch, meta, owner (and in their slot batch:n, the buckets)
-- reply { pending, in the batch, oldest since (server milliseconds, 0: nothing waits), now, id of the batch or false,
--         acks, owner or false }
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = redis.call('HMGET', KEYS[3], 'dirty', 'frozen', 'batch', 'acks', 'spread', 'parts')
local dirty, frozen = tonumber(meta[1] or 0), tonumber(meta[2] or 0)
local oldest = (meta[3] and frozen > 0) and frozen or dirty
local in_batch = 0
for part in string.gmatch(meta[6] or '0', '%d+') do
  in_batch = in_batch + redis.call('HLEN', part == '0' and KEYS[2] or KEYS[2] .. ':' .. part)
end
return {
  redis.call('HLEN', KEYS[1]) + tonumber(meta[5] or 0),
  in_batch,
  oldest,
  now,
  meta[3],
  tonumber(meta[4] or 0),
  redis.call('GET', KEYS[4]),
}
