-- A writer has changed the database, or may have. Its value is stored only if nothing overlapped.
-- KEYS  cell
-- ARGV  token [, fresh_ms, dead_ms, head, rest]
-- reply STORED | EMPTY | WRITING
if not is_writing then
  become_empty()
  return { EMPTY, now, false }
end
local others, mine, _, latest = other_writers(ARGV[1])
if others ~= '' then
  become_writing(true, others, latest)
  return { WRITING, now, false }
end
if ARGV[2] and mine and string.sub(raw, 2, 2) == '0' then
  become_value(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
  return { STORED, now, false }
end
become_empty()
return { EMPTY, now, false }
