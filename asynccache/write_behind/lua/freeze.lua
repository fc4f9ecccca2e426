-- Makes pending writes the batch, at most `max_batch` of them, or says which batch is frozen already. Whole hashes are
-- renamed, at no cost for what they hold; only one that is too large by itself is cut.
-- KEYS  pending, batch, meta (and in their slot pending:n and batch:n, the buckets; see buffer.py)
-- ARGV  max_batch, id for a new batch, max_bytes of records (0: any number; the first record goes in whatever its size)
-- reply false if there is nothing to flush, else { id, numbers of the hashes that hold the batch, how many still pend }
local pending, batch, meta = KEYS[1], KEYS[2], KEYS[3]
local BUCKETS = 64
local CHUNK = 1000 -- a call takes some 8,000 arguments

local function named(hash, part)
  if part == 0 then return hash end
  return hash .. ':' .. part
end

local function move(from, to, fields)
  local records, pairs_ = redis.call('HMGET', from, unpack(fields)), {}
  for at, field in ipairs(fields) do
    pairs_[2 * at - 1], pairs_[2 * at] = field, records[at]
  end
  redis.call('HSET', to, unpack(pairs_))
  redis.call('HDEL', from, unpack(fields))
end

-- An upper bound of the bytes in a hash, which costs no look at what it holds.
local function weight(hash)
  local bytes = redis.pcall('MEMORY', 'USAGE', hash, 'SAMPLES', 0)
  return type(bytes) == 'number' and bytes or math.huge
end

-- Puts back what is above `max_bytes`; returns how many that were.
local function trim(from, to, max_bytes)
  local all, size, back = redis.call('HGETALL', to), 0, {}
  for at = 1, #all, 2 do
    size = size + #all[at + 1]
    if size > max_bytes and at > 1 then back[#back + 1] = all[at] end
  end
  for first = 1, #back, CHUNK do
    move(to, from, { unpack(back, first, math.min(first + CHUNK - 1, #back)) })
  end
  return #back
end

local state = redis.call('HMGET', meta, 'batch', 'parts', 'spread', 'turn', 'dirty')
local id, parts = state[1], state[2] or '0'
local base, spread = redis.call('HLEN', pending), tonumber(state[3] or 0)
if id then return { id, parts, base + spread } end

local max, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[3] or 0)
local taken, bytes, full, list = 0, 0, false, {}

-- Takes a hash of so many writes. False if it does not fit beside what was taken before.
local function take(part, count)
  local from, to = named(pending, part), named(batch, part)
  local more = max_bytes > 0 and weight(from) or 0
  if taken > 0 and (taken + count > max or bytes + more > max_bytes and max_bytes > 0) then return false end
  if count <= max then
    redis.call('RENAME', from, to)
  else
    full = true
    local left = max
    while left > 0 do
      local fields = redis.call('HRANDFIELD', from, math.min(left, CHUNK))
      move(from, to, fields)
      left = left - #fields
    end
    count = max
    more = max_bytes > 0 and weight(to) or 0
  end
  if taken == 0 and more > max_bytes and max_bytes > 0 then
    local back = trim(from, to, max_bytes)
    full = full or back > 0
    count = count - back
  end
  taken, bytes = taken + count, bytes + more
  if part > 0 then spread = spread - count end
  list[#list + 1] = part
  return true
end

-- In turn, beginning behind the one that was taken from last: none waits for ever behind others that are written to.
local first = tonumber(state[4] or BUCKETS)
local turn = first
for n = 1, BUCKETS + 1 do
  local part = (first + n) % (BUCKETS + 1)
  local count = part == 0 and base or 0
  if part > 0 and spread > 0 then count = redis.call('HLEN', named(pending, part)) end
  if count > 0 then
    if not take(part, count) then break end
    turn = part
    if full or taken >= max then break end
  end
end
if taken == 0 then -- also if Redis has lost the buckets
  redis.call('HDEL', meta, 'dirty', 'spread')
  return false
end

id, parts = ARGV[2], table.concat(list, ',')
local left = redis.call('HLEN', pending) + spread
-- What is left may be as old as the oldest was: which of them that is, nobody knows.
if left == 0 then redis.call('HDEL', meta, 'dirty') end
redis.call('HSET', meta, 'batch', id, 'frozen', state[5] or 0, 'parts', parts, 'spread', spread, 'turn', turn)
return { id, parts, left }
