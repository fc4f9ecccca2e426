-- Turns up to `max_batch` pending writes into the batch, or shows the batch that is frozen already.
-- KEYS  pending, batch, meta
-- ARGV  max_batch, id for a new batch, max_bytes of records (0: any number; the first record goes in whatever its size)
-- reply false if there is nothing to flush, else { id, field, record, ... }
local pending, batch, meta = KEYS[1], KEYS[2], KEYS[3]
local CHUNK = 1000 -- a call takes some 8,000 arguments

local function move(from, to, fields)
  local records, pairs_ = redis.call('HMGET', from, unpack(fields)), {}
  for at, field in ipairs(fields) do
    pairs_[2 * at - 1], pairs_[2 * at] = field, records[at]
  end
  redis.call('HSET', to, unpack(pairs_))
  redis.call('HDEL', from, unpack(fields))
end

local id = redis.call('HGET', meta, 'batch')
if not id then
  local count, max, max_bytes = redis.call('HLEN', pending), tonumber(ARGV[1]), tonumber(ARGV[3] or 0)
  if count == 0 then return false end
  id = ARGV[2]
  local dirty = redis.call('HGET', meta, 'dirty')
  if count <= max then
    redis.call('RENAME', pending, batch)
  else
    local left = max
    while left > 0 do
      local fields = redis.call('HRANDFIELD', pending, math.min(left, CHUNK))
      move(pending, batch, fields)
      left = left - #fields
    end
  end
  if max_bytes > 0 then
    local all, size, back = redis.call('HGETALL', batch), 0, {}
    for at = 1, #all, 2 do
      size = size + #all[at + 1]
      if size > max_bytes and at > 1 then back[#back + 1] = all[at] end
    end
    for from = 1, #back, CHUNK do
      local part = {}
      for at = from, math.min(from + CHUNK - 1, #back) do part[#part + 1] = back[at] end
      move(batch, pending, part)
    end
  end
  -- What is left may be as old as the oldest was: which of them that is, nobody knows.
  if redis.call('EXISTS', pending) == 0 then redis.call('HDEL', meta, 'dirty') end
  redis.call('HSET', meta, 'batch', id, 'frozen', dirty or 0)
end
local reply = redis.call('HGETALL', batch)
table.insert(reply, 1, id)
return reply
