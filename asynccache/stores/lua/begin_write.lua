-- A writer is about to change the database. Works on cells and on generations.
-- KEYS  cell
-- ARGV  token, write_ms
-- reply WRITING
local overlapped, writers, latest = false, '', 0
if is_writing then
  local others, _, any, last = other_writers(ARGV[1])
  overlapped = string.sub(raw, 2, 2) == '1' or any
  writers, latest = others, last
end
local deadline = now + ARGV[2]
become_writing(overlapped, writers .. ARGV[1] .. int(deadline), math.max(latest, deadline))
return { WRITING, now, false }
