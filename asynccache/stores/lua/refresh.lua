-- A reader asks for the right to replace the value `id` while others go on reading it.
-- KEYS  cell
-- ARGV  token, lease_ms, id, at_once (1: even in the pause after a failed refresh)
-- reply LEASED | REFUSED
if not is_value or string.sub(raw, ID_AT, ID_AT + 7) ~= ARGV[3] then return { REFUSED, now, false } end
if int_at(raw, REFRESH_AT + 8) > now and not holds(ARGV[1]) and not (ARGV[4] == '1' and holds(NO_TOKEN)) then
  return { REFUSED, now, false }
end
set_refresh(ARGV[1], now + ARGV[2])
return { LEASED, now, false }
