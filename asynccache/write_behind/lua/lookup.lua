-- What is not in the database yet, and what tells whether that has changed meanwhile.
-- KEYS  pending, batch, meta
-- ARGV  fields
-- reply { id of the batch or false, acks, { pending record or false, ... }, { frozen record or false, ... } }
local state = redis.call('HMGET', KEYS[3], 'batch', 'acks')
return {
  state[1],
  tonumber(state[2] or 0),
  redis.call('HMGET', KEYS[1], unpack(ARGV)),
  redis.call('HMGET', KEYS[2], unpack(ARGV)),
}
