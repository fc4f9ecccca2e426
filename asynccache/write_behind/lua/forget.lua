-- A writer that has ended needs its last call no more.
-- KEYS  seen
-- reply 1 | 0
return redis.call('DEL', KEYS[1])
