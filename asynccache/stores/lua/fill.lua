-- A reader stores what it loaded, if the cell still holds its token.
-- KEYS  cell
-- ARGV  token, fresh_ms, dead_ms, head, rest
-- reply STORED | REFUSED
if not holds(ARGV[1]) then return { REFUSED, now, false } end
become_value(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
return { STORED, now, false }
