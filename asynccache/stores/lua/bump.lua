-- Begins a new generation: whatever carries the old one is outdated.
-- KEYS  generation
-- ARGV  salt
-- reply VALUE generation | WRITING
if is_writing then
  overlap()
  return { WRITING, now, false }
end
return { VALUE, now, become_generation(ARGV[1]) }
