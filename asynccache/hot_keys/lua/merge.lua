-- Adds what one process has counted to the list of a strategy's hot keys. Safe to repeat.
-- A score is log2(weight) + time / half-life: it stays true while time passes, and no decay ever has to be written.
-- A key that is not in the list begins with all that the process has seen of it: it may have been cut off before.
-- KEYS  hot (sorted set: encoded key -> score), life (half-life of the scores, milliseconds), seen (last call of the
--       process)
-- ARGV  call, full ('1': nothing of the process is in the list yet), counted at (server milliseconds), half-life
--       (milliseconds), most keys kept, life of the list, life of `seen` (milliseconds); { member, since, total }*
-- reply MERGED (also if it was before) | RESTART (Redis does not know the process: all that it has seen is wanted)
local MERGED, RESTART = 0, 1
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local hot, life, seen = KEYS[1], KEYS[2], KEYS[3]
local call, full, at = tonumber(ARGV[1]), ARGV[2] == '1', math.min(tonumber(ARGV[3]), now)
local half_life = tonumber(ARGV[4])

local function log2(x) return math.log(x) / math.log(2) end

-- log2(2^a + 2^b), of numbers whose powers no float holds
local function sum(a, b)
  local high, low = math.max(a, b), math.min(a, b)
  return high + log2(1 + 2 ^ math.max(low - high, -100))
end

local function put(member, score) redis.call('ZADD', hot, string.format('%.17g', score), member) end

local last = tonumber(redis.call('GET', seen) or 0)
if last >= call then return MERGED end
if last == 0 and not full then return RESTART end

local before = tonumber(redis.call('GET', life) or half_life)
if before ~= half_life then -- another release's: the same weights, as of now, under the new half-life
  local all = redis.call('ZRANGE', hot, 0, -1, 'WITHSCORES')
  for n = 1, #all, 2 do put(all[n], all[n + 1] - now / before + now / half_life) end
end
redis.call('SET', life, half_life, 'PX', ARGV[6])

for n = 8, #ARGV, 3 do
  local member, since, total = ARGV[n], tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2])
  local score = redis.call('ZSCORE', hot, member)
  local added = (full or not score) and total or since
  if added > 0 then
    local own = log2(added) + at / half_life
    put(member, score and sum(tonumber(score), own) or own)
  end
end
redis.call('ZREMRANGEBYRANK', hot, 0, -1 - ARGV[5])
redis.call('PEXPIRE', hot, ARGV[6])
redis.call('SET', seen, call, 'PX', ARGV[7])
return MERGED
