-- A row was written in the database itself. Readers who looked before that must look again, as after an acknowledgement.
-- KEYS  batch, meta
-- ARGV  field
-- reply 1 if the frozen batch holds the key, too: until it is acknowledged, readers see what it says | 0
redis.call('HINCRBY', KEYS[2], 'acks', 1)
return redis.call('HEXISTS', KEYS[1], ARGV[1])
