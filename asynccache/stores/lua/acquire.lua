-- A reader asks for the right to fill an empty cell; a value with the id `dead` counts as empty.
-- KEYS  cell
-- ARGV  token, lease_ms, dead
-- reply LEASED | VALUE cell | HELD cell | WRITING
if is_value and string.sub(raw, ID_AT, ID_AT + 7) ~= ARGV[3] then return { VALUE, now, raw } end
if is_lease and string.sub(raw, 2) ~= ARGV[1] then return { HELD, now, raw } end
if is_writing then return { WRITING, now, false } end
redis.call('SET', KEY, 'L' .. ARGV[1], 'PX', ARGV[2])
return { LEASED, now, false }
