-- What is not in the database yet, and what tells whether that has changed meanwhile.
-- KEYS  pending, batch, meta (and in their slot pending:n and batch:n, the buckets)
-- ARGV  the bucket of each field (a byte each), fields
-- reply { id of the batch or false, acks, { pending record or false, ... }, { frozen record or false, ... } }
local state = redis.call('HMGET', KEYS[3], 'batch', 'acks', 'spread', 'parts')

local function find(hash, spread)
  local records = redis.call('HMGET', hash, unpack(ARGV, 2))
  if spread then
    for n = 1, #ARGV - 1 do
      if not records[n] then
        records[n] = redis.call('HGET', hash .. ':' .. string.byte(ARGV[1], n), ARGV[n + 1])
      end
    end
  end
  return records
end

return {
  state[1],
  tonumber(state[2] or 0),
  find(KEYS[1], tonumber(state[3] or 0) > 0),
  find(KEYS[2], (state[4] or '0') ~= '0'),
}
