-- A reader gives up its lease. A failed refresh is not tried again by anybody for `retry_ms`.
-- KEYS  cell
-- ARGV  token, retry_ms
-- reply EMPTY | VALUE | REFUSED
if not holds(ARGV[1]) then return { REFUSED, now, false } end
if is_lease then
  become_empty()
  return { EMPTY, now, false }
end
set_refresh(NO_TOKEN, now + ARGV[2])
return { VALUE, now, false }
