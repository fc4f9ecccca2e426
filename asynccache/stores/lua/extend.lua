-- A reader whose load takes long keeps its lease, or its refresh lease, alive.
-- KEYS  cell
-- ARGV  token, lease_ms
-- reply LEASED | REFUSED
if not holds(ARGV[1]) then return { REFUSED, now, false } end
if is_lease then
  redis.call('PEXPIRE', KEY, ARGV[2])
else
  set_refresh(ARGV[1], now + ARGV[2])
end
return { LEASED, now, false }
