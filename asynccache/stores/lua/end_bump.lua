-- A writer that began with begin_write on a generation has ended.
-- KEYS  generation
-- ARGV  token, salt
-- reply VALUE generation | WRITING
if is_writing then
  local others, _, _, latest = other_writers(ARGV[1])
  if others ~= '' then
    become_writing(true, others, latest)
    return { WRITING, now, false }
  end
end
return { VALUE, now, become_generation(ARGV[2]) }
