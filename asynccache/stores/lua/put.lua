-- Stores a value the caller vouches for; a writing cell stays and counts as overlapped.
-- One that arrives after its caller has given it up empties the cell: another may have been put, or deleted, since.
-- KEYS  cell
-- ARGV  fresh_ms, dead_ms, head, rest, deadline (milliseconds of this server)
-- reply STORED | WRITING | EMPTY
if is_writing then
  overlap()
  return { WRITING, now, false }
end
if now > tonumber(ARGV[5]) then
  become_empty()
  return { EMPTY, now, false }
end
become_value(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return { STORED, now, false }
