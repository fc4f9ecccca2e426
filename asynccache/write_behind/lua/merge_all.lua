-- Merges writes into several partitions: what `merge.lua` does for one, in one command, which costs a client more than
-- the script costs the server. A partition whose merge is refused leaves the others alone.
-- KEYS  pending, meta, seen of each partition, one after the other
-- ARGV  seq, max_pending, life of `seen` in ms, spread_above; then for each partition: beginning of cells, writes, buckets
-- reply for each partition what `merge.lua` replies, or an error
-- The beginning of merge.lua stands here.
local function merge(pending, meta, seen, cells, raw, bucket_of)
  -- The rest of merge.lua stands here.
end
local replies = {}
for n = 1, #KEYS / 3 do
  local key, at = 3 * n, 3 * n + 2
  local done, reply = pcall(merge, KEYS[key - 2], KEYS[key - 1], KEYS[key], ARGV[at], ARGV[at + 1], ARGV[at + 2])
  if not done and type(reply) ~= 'table' then reply = { err = tostring(reply) } end
  replies[n] = reply
end
return replies
