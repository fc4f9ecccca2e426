-- Empties the cell, which takes any reader's lease away; a writing cell stays and counts as overlapped.
-- KEYS  cell
-- reply EMPTY | WRITING
if is_writing then
  overlap()
  return { WRITING, now, false }
end
become_empty()
return { EMPTY, now, false }
