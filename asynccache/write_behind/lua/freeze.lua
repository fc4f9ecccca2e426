-- Turns up to `max_batch` pending writes into the batch, or shows the batch that is frozen already.
-- KEYS  pending, batch, meta
-- ARGV  max_batch, id for a new batch
-- reply false if there is nothing to flush, else { id, field, record, ... }
local pending, batch, meta = KEYS[1], KEYS[2], KEYS[3]
local id = redis.call('HGET', meta, 'batch')
if not id then
  local count, max = redis.call('HLEN', pending), tonumber(ARGV[1])
  if count == 0 then return false end
  id = ARGV[2]
  if count <= max then
    redis.call('RENAME', pending, batch)
    redis.call('HDEL', meta, 'dirty')
  else
    local left = max
    while left > 0 do
      -- In chunks: a call takes some 8,000 arguments.
      local fields = redis.call('HRANDFIELD', pending, math.min(left, 1000))
      local records, pairs_ = redis.call('HMGET', pending, unpack(fields)), {}
      for at, field in ipairs(fields) do
        pairs_[2 * at - 1], pairs_[2 * at] = field, records[at]
      end
      redis.call('HSET', batch, unpack(pairs_))
      redis.call('HDEL', pending, unpack(fields))
      left = left - #fields
    end
    local clock = redis.call('TIME')
    redis.call('HSET', meta, 'dirty', clock[1] * 1000 + math.floor(clock[2] / 1000))
  end
  redis.call('HSET', meta, 'batch', id)
end
local reply = redis.call('HGETALL', batch)
table.insert(reply, 1, id)
return reply
