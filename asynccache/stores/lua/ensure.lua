-- Makes sure that a generation exists, and keeps it from expiring.
-- KEYS  generation
-- ARGV  salt
-- reply VALUE generation | WRITING
if is_writing then return { WRITING, now, false } end
if is_generation then
  redis.call('PEXPIRE', KEY, GENERATION_MS)
  return { VALUE, now, raw }
end
return { VALUE, now, become_generation(ARGV[1]) }
