-- Merges writes into several partitions: what `merge.lua` does for one, in one command, which costs a client more than
-- the script costs the server. A partition whose merge is refused leaves the others alone.
-- KEYS  those of each partition, one after the other
-- ARGV  seq, max_pending, life of `seen` in ms, spread_above; then for each partition: how many keys, writes, buckets
-- reply for each partition what `merge.lua` replies, or an error
-- The beginning of merge.lua stands here.
local function merge(KEYS, ARGV)
  -- The rest of merge.lua stands here.
end
local replies, next_key = {}, 1
for at = 5, #ARGV, 3 do
  local count = tonumber(ARGV[at])
  local keys = { unpack(KEYS, next_key, next_key + count - 1) }
  next_key = next_key + count
  local done, reply = pcall(merge, keys, { ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[at + 1], ARGV[at + 2] })
  if not done and type(reply) ~= 'table' then reply = { err = tostring(reply) } end
  replies[#replies + 1] = reply
end
return replies
