-- The hottest keys of a strategy, as all processes have counted them. Changes nothing.
-- KEYS  hot (sorted set: encoded key -> log2(weight) + time / half-life), life (half-life of the scores, milliseconds)
-- ARGV  how many at most
-- reply { now (milliseconds), half-life (milliseconds) or false, member, score, ... }, hottest first
local clock = redis.call('TIME')
local reply = { clock[1] * 1000 + math.floor(clock[2] / 1000), redis.call('GET', KEYS[2]) }
local found = redis.call('ZREVRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')
for n = 1, #found do reply[n + 2] = found[n] end
return reply
