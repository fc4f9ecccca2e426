-- Fixes how many partitions a strategy has, and marks its Redis: a mark that is gone says that the data is gone, too.
-- KEYS  setup
-- ARGV  partitions, mark for a new setup
-- reply { partitions, mark }
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[1])
redis.call('HSETNX', KEYS[1], 'mark', ARGV[2])
return redis.call('HMGET', KEYS[1], 'partitions', 'mark')
