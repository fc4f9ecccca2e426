-- How far the last run came. Changes nothing.
-- KEYS  checkpoint (hash: run, position, done)
-- ARGV  none
-- reply position; 0 if there was none, or all was done
local found = redis.call('HMGET', KEYS[1], 'position', 'done')
if not found[1] or found[2] == '1' then return 0 end
return tonumber(found[1])
