-- Remembers how far a run has come. Safe to repeat, also late: a run never goes back, nor comes back after its end or
-- after the begin of a later one.
-- KEYS  checkpoint (hash: run, position, done)
-- ARGV  run (sorts by its begin), position, done ('1': all is done, the next run begins anew), life (milliseconds)
-- reply 1, or 0 if it was left as it is
local found = redis.call('HMGET', KEYS[1], 'run', 'position', 'done')
if found[1] then
  if found[1] > ARGV[1] then return 0 end
  if found[1] == ARGV[1] and (found[3] == '1' or tonumber(found[2]) > tonumber(ARGV[2])) then return 0 end
end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'position', ARGV[2], 'done', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
