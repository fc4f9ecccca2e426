-- Stores a value the caller vouches for; a writing cell stays and counts as overlapped.
-- KEYS  cell
-- ARGV  fresh_ms, dead_ms, head, rest
-- reply STORED | WRITING
if is_writing then
  overlap()
  return { WRITING, now, false }
end
become_value(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return { STORED, now, false }
