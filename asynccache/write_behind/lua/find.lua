-- What is not in the database yet: the newest record of each field, pending before frozen.
-- KEYS  pending, batch
-- ARGV  fields
-- reply a record or false for each field
local found = redis.call('HMGET', KEYS[1], unpack(ARGV))
local frozen = redis.call('HMGET', KEYS[2], unpack(ARGV))
for at = 1, #ARGV do found[at] = found[at] or frozen[at] end
return found
