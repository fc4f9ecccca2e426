-- Merges writes into what pends, and keeps the readable cells true to it, atomically. A call that is repeated with the
-- same `seq` does nothing and gives the same verdicts; one that comes late, after a newer one, does nothing.
-- KEYS  pending (hash: field -> record), meta (hash: batch, acks, dirty, spread), seen (of this writer), the cell of each
--       write but appends; and in their slot pending:n, the buckets
-- ARGV  seq, max_pending, life of `seen` in ms, how many keys pend in one hash before others go to their buckets, the
--       writes in one string (clients pack that faster than arguments), the bucket of each write (a byte each)
--         a write is a letter, then parts with their length (4 bytes) before them; numbers are of 8 bytes
--         P field head cell_head cell_rest fresh_ms dead_ms   put, which becomes readable
--         Q field head                                        put; the cell is emptied
--         D field head                                        delete
--         I field head adjustments                            increment, maximum, minimum
--         A field head                                        append
-- reply { a verdict for each write ('1' accepted, '0' the buffer is full, 'r' a number left its range), pending };
--       the verdicts are '' if a newer call was here before
-- A record is: base (N only adjusted, P put, R put after a delete, D deleted, A appended), length of the head (4), head,
-- adjustments; see records.py and numbers.py.
local sub, pack, unpack_ = string.sub, struct.pack, struct.unpack
local UNIT, LIMIT = 1e9, 1e15
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Numbers are { H, L, F } if exact, { x } if floats.
local function read_number(kind, raw, at)
  if kind == 'f' then
    local x, next_at = unpack_('>d', raw, at)
    return { x }, next_at
  end
  local h, l, f, next_at = unpack_('>ddd', raw, at)
  return { h, l, f }, next_at
end

local function write_number(x)
  if x[2] then return pack('>ddd', x[1], x[2], x[3]) end
  return pack('>d', x[1])
end

local function plus(a, b)
  if not a[2] then return { a[1] + b[1] } end
  local h, l, f = a[1] + b[1], a[2] + b[2], a[3] + b[3]
  if f >= UNIT then f, l = f - UNIT, l + 1 end
  if l >= UNIT then l, h = l - UNIT, h + 1 end
  return { h, l, f }
end

local function less(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  if not a[2] then return false end
  if a[2] ~= b[2] then return a[2] < b[2] end
  return a[3] < b[3]
end

local function fits(x)
  if x[2] then return x[1] >= -LIMIT and x[1] < LIMIT end
  return x[1] - x[1] == 0 -- neither infinite nor NaN
end

local function larger(a, b) if less(a, b) then return b end return a end
local function smaller(a, b) if less(b, a) then return b end return a end

local function as_float(x)
  if x and x[2] then return { x[1] * UNIT + x[2] + x[3] / UNIT } end
  return x
end

local function read_columns(raw, at)
  local columns = {}
  while at <= #raw do
    local column = {}
    local flags
    column.name, column.kind, flags, at = unpack_('>Bc0c1B', raw, at)
    column.add, at = read_number(column.kind, raw, at)
    if flags % 2 == 1 then column.floor, at = read_number(column.kind, raw, at) end
    if flags >= 2 then column.ceiling, at = read_number(column.kind, raw, at) end
    columns[#columns + 1] = column
  end
  return columns
end

local function write_columns(columns)
  local parts = {}
  for at, column in ipairs(columns) do
    local flags = (column.floor and 1 or 0) + (column.ceiling and 2 or 0)
    parts[at] = pack('>Bc0c1B', #column.name, column.name, column.kind, flags) .. write_number(column.add)
      .. (column.floor and write_number(column.floor) or '') .. (column.ceiling and write_number(column.ceiling) or '')
  end
  return table.concat(parts)
end

-- x -> min(ceiling, max(floor, x + add)), first as `old` says and then as `new` does: of the same form again.
-- false if a number leaves its range.
local function combine(old, new)
  if old.kind ~= new.kind then
    for _, column in ipairs({ old, new }) do
      column.kind, column.add = 'f', as_float(column.add)
      column.floor, column.ceiling = as_float(column.floor), as_float(column.ceiling)
    end
  end
  local add = plus(old.add, new.add)
  local floor = old.floor and plus(old.floor, new.add)
  local ceiling = old.ceiling and plus(old.ceiling, new.add)
  if new.floor then
    floor = floor and larger(floor, new.floor) or new.floor
    ceiling = ceiling and larger(ceiling, new.floor)
  end
  if new.ceiling then
    ceiling = ceiling and smaller(ceiling, new.ceiling) or new.ceiling
    floor = floor and smaller(floor, new.ceiling)
  end
  if not fits(add) or (floor and not fits(floor)) or (ceiling and not fits(ceiling)) then return false end
  old.add, old.floor, old.ceiling = add, floor, ceiling
  return true
end

-- The adjustments of `raw` from `at` on, followed by `more`; false if a number leaves its range.
local function adjusted(raw, at, more)
  if at > #raw then return more end
  local columns, by_name = read_columns(raw, at), {}
  for _, column in ipairs(columns) do by_name[column.name] = column end
  for _, column in ipairs(read_columns(more, 1)) do
    local old = by_name[column.name]
    if not old then
      columns[#columns + 1] = column
      by_name[column.name] = column
    elseif not combine(old, column) then
      return false
    end
  end
  return write_columns(columns)
end

-- From here on for one partition.
local pending, meta, seen = KEYS[1], KEYS[2], KEYS[3]
local seq, max_pending, spread_above = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])

local last = redis.call('GET', seen)
if last then
  local done = unpack_('>d', last)
  if done == seq then
    -- A write, so that a WAIT on this connection waits for what the first call wrote.
    redis.call('PEXPIRE', seen, ARGV[3])
    return { sub(last, 9), redis.call('HLEN', pending) + tonumber(redis.call('HGET', meta, 'spread') or 0) }
  end
  if done > seq then return { '', 0 } end
end

local ops, fields, known, bucket_of = {}, {}, {}, {}
local raw, at = ARGV[5], 1
while at <= #raw do
  local op = {}
  op.kind, op.field, op.head, at = unpack_('>c1I4c0I4c0', raw, at)
  if op.kind == 'I' then
    op.more, at = unpack_('>I4c0', raw, at)
  elseif op.kind == 'P' then
    op.cell_head, op.cell_rest, op.fresh_ms, op.dead_ms, at = unpack_('>I4c0I4c0I8I8', raw, at)
  end
  ops[#ops + 1] = op
  if known[op.field] == nil then
    known[op.field] = false
    fields[#fields + 1] = op.field
    bucket_of[op.field] = string.byte(ARGV[6], #ops)
  end
end
local before = redis.call('HMGET', pending, unpack(fields))
local base, spread = redis.call('HLEN', pending), tonumber(redis.call('HGET', meta, 'spread') or 0)
local count, spread_before = base + spread, spread
local was_empty = count == 0
-- Each key pends in one hash: 0, that of all, or its bucket.
local home, missing = {}, {}
for n, field in ipairs(fields) do
  known[field] = before[n]
  if before[n] then
    home[field] = 0
  elseif spread > 0 then
    local bucket = bucket_of[field]
    local others = missing[bucket]
    if others then others[#others + 1] = field else missing[bucket] = { field } end
  end
end
for bucket, others in pairs(missing) do
  local records = redis.call('HMGET', pending .. ':' .. bucket, unpack(others))
  for n, field in ipairs(others) do
    known[field] = records[n]
    if records[n] then home[field] = bucket end
  end
end
local changed, cells, verdicts = {}, {}, {}
local next_cell = 4
for n, op in ipairs(ops) do
  local kind, field, head = op.kind, op.field, op.head
  local old = known[field]
  local cell
  if kind ~= 'A' then
    cell = KEYS[next_cell]
    next_cell = next_cell + 1
  end
  local verdict, record = '1', nil
  if not old and count >= max_pending then
    verdict = '0'
  elseif kind == 'I' then
    if old then
      local head_end = 5 + unpack_('>I4', old, 2)
      local more = adjusted(old, head_end + 1, op.more)
      if more then record = sub(old, 1, head_end) .. more else verdict = 'r' end
    else
      record = 'N' .. pack('>I4', #head) .. head .. op.more
    end
  else
    local base = kind
    if kind == 'P' or kind == 'Q' then
      local was = old and sub(old, 1, 1)
      base = (was == 'D' or was == 'R') and 'R' or 'P'
    end
    record = base .. pack('>I4', #head) .. head
  end
  if record then
    if not old then
      count = count + 1
      if base < spread_above then
        base, home[field] = base + 1, 0
      else
        spread, home[field] = spread + 1, bucket_of[field]
      end
    end
    known[field], changed[field] = record, true
    if cell then cells[cell] = op end
  end
  verdicts[n] = verdict
end

-- First what needs memory: a server that has none refuses the first write of a script, and none after it.
local written = {}
for _, field in ipairs(fields) do
  if changed[field] then
    local values = written[home[field]]
    if values then
      values[#values + 1] = field
      values[#values + 1] = known[field]
    else
      written[home[field]] = { field, known[field] }
    end
  end
end
for part, values in pairs(written) do
  redis.call('HSET', part == 0 and pending or pending .. ':' .. part, unpack(values))
end
if next(changed) then
  if spread ~= spread_before then redis.call('HSET', meta, 'spread', spread) end
  if was_empty then redis.call('HSETNX', meta, 'dirty', now) end
  local empty = {}
  for cell, op in pairs(cells) do
    if op.kind == 'P' then
      local life = pack('>I8I8', now + op.fresh_ms, now + op.dead_ms)
      redis.call('SET', cell, op.cell_head .. life .. op.cell_rest, 'PX', op.dead_ms)
    else
      empty[#empty + 1] = cell
    end
  end
  -- Which takes any reader's lease away, too.
  if #empty > 0 then redis.call('DEL', unpack(empty)) end
end
local reply = table.concat(verdicts)
redis.call('SET', seen, pack('>d', seq) .. reply, 'PX', ARGV[3])
return { reply, count }
