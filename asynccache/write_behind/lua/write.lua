-- Buffers one write of a key and makes it readable, atomically. Safe to repeat: the last write of a key stands.
-- KEYS  cell, pending (hash: field -> record), meta (hash: batch, acks, dirty)
-- ARGV  field, record, max_pending [, fresh_ms, dead_ms, head, rest: the readable value; without them the cell is emptied]
-- reply { 1, pending } | { 0, pending } if the buffer is full (a key that is pending already may still be written)
local count = redis.call('HLEN', KEYS[2])
if count >= tonumber(ARGV[3]) and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return { 0, count } end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local added = redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSETNX', KEYS[3], 'dirty', now)
if ARGV[4] then
  local life = struct.pack('>I8I8', now + ARGV[4], now + ARGV[5])
  redis.call('SET', KEYS[1], ARGV[6] .. life .. ARGV[7], 'PX', ARGV[5])
else
  redis.call('DEL', KEYS[1]) -- which takes any reader's lease away, too
end
return { 1, count + added }
