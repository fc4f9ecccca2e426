-- Merges writes into what pends, and keeps the readable cells true to it, atomically. A call that is repeated with the
-- same `seq` does nothing and gives the same verdicts; one that comes late, after a newer one, does nothing. Partitions
-- share a call, which costs a client more than the script costs the server; one that is refused leaves others alone.
-- KEYS  of each partition: pending (hash: field -> record), meta (hash: batch, acks, dirty, spread), seen (of this
--       writer); and in their slot pending:n, the buckets, and the cells
-- ARGV  seq, max_pending, life of `seen` in ms, how many keys pend in one hash before others go to their buckets; then
--       of each partition: what the names of its cells begin with, its writes in one string (clients pack that faster than
--       arguments), the bucket of each write (a byte each)
--         a write is a letter, field, record, cell: with their length (4 bytes) before them; numbers are of 8 bytes
--         P put, D delete, I increment, maximum, minimum, A append
--         `record` is what pends after it if nothing pended before
--         `cell` is fresh_ms, dead_ms, the first four bytes of a readable value, and what follows its life; or empty,
--         and then the cell is emptied
-- reply of each partition { a verdict for each write ('1' accepted, '0' the buffer is full, 'r' a number left its
--       range), how many keys pend }, or an error; the verdicts are '' if a newer call was here before
-- A record is: base (N only adjusted, P put, R put after a delete, D deleted, A appended), length of the head (4),
-- head, adjustments; see layout.py and numbers.py.
local call, sub, byte, pack, unpack_ = redis.call, string.sub, string.byte, struct.pack, struct.unpack
local UNIT, LIMIT = 1e9, 1e15
local PUT, ADJUSTED, APPENDED, DELETED, ANEW = byte('P'), byte('I'), byte('A'), byte('D'), byte('R')
local clock = call('TIME')
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
  -- The usual one: an exact number is added to another of the same column, without bounds. The length tells that.
  local head = #more - 24
  if byte(more, 1) + 3 == head and #raw - at + 1 == #more and sub(raw, at, at + head - 1) == sub(more, 1, head) then
    local h, l, f = unpack_('>ddd', raw, at + head)
    local add = plus({ h, l, f }, { unpack_('>ddd', more, head + 1) })
    return fits(add) and sub(more, 1, head) .. pack('>ddd', add[1], add[2], add[3])
  end
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

local seq, max_pending, seen_ms, spread_above = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
-- Lists that each partition uses again: to make them anew would cost more than the rest. What they hold behind the
-- writes at hand is of others; a field is in one partition only.
local kinds, place, records, cell_at, cell_size, verdicts, place_of = {}, {}, {}, {}, {}, {}, {}
local fields, buckets, home, last, values = {}, {}, {}, {}, {}

local function merge(pending, meta, seen, cells, raw, bucket_of)
  local before = call('GET', seen)
  if before then
    local done = unpack_('>d', before)
    if done == seq then
      -- A write, so that a WAIT on this connection waits for what the first call wrote.
      call('PEXPIRE', seen, seen_ms)
      return { sub(before, 9), call('HLEN', pending) + tonumber(call('HGET', meta, 'spread') or 0) }
    end
    if done > seq then return { '', 0 } end
  end

  -- By write: what it is. By field (`place` says which: fields[place[n]] is that of the n-th write): its bucket; then
  -- its record, its hash (0, that of all, or a bucket), and the last write that was accepted.
  local writes, different, at, size = 0, 0, 1, #raw
  while at <= size do
    writes = writes + 1
    local kind, field, record, cell
    kind, field, record, cell, at = unpack_('>BI4c0I4c0I4', raw, at)
    kinds[writes], records[writes], cell_at[writes], cell_size[writes] = kind, record, at, cell
    at = at + cell
    local m = place_of[field]
    if not m then
      different = different + 1
      m = different
      place_of[field], fields[m], buckets[m], home[m], last[m] = m, field, byte(bucket_of, writes), 0, false
    end
    place[writes] = m
  end
  local known = call('HMGET', pending, unpack(fields, 1, different))
  local base, spread = call('HLEN', pending), tonumber(call('HGET', meta, 'spread') or 0)
  local count, spread_before = base + spread, spread
  local was_empty = count == 0
  if spread > 0 then -- each key pends in one hash
    local missing = {}
    for m = 1, different do
      if not known[m] then
        local others = missing[buckets[m]]
        if others then others[#others + 1] = m else missing[buckets[m]] = { m } end
      end
    end
    for bucket, others in pairs(missing) do
      local names = {}
      for i, m in ipairs(others) do names[i] = fields[m] end
      for i, record in ipairs(call('HMGET', pending .. ':' .. bucket, unpack(names))) do
        if record then known[others[i]], home[others[i]] = record, bucket end
      end
    end
  end
  local any = false
  for i = 1, writes do
    local kind, m, record, verdict = kinds[i], place[i], records[i], '1'
    local old = known[m]
    if not old then
      if count >= max_pending then
        record, verdict = nil, '0'
      else
        count = count + 1
        if base < spread_above then
          base = base + 1
        else
          spread, home[m] = spread + 1, buckets[m]
        end
      end
    elseif kind == ADJUSTED then
      local head_end = 5 + unpack_('>I4', old, 2)
      local more = adjusted(old, head_end + 1, sub(record, 6 + unpack_('>I4', record, 2)))
      if more then record = sub(old, 1, head_end) .. more else record, verdict = nil, 'r' end
    elseif kind == PUT then
      local was = byte(old)
      if was == DELETED or was == ANEW then record = 'R' .. sub(record, 2) end
    end
    if record then known[m], last[m], any = record, i, true end
    verdicts[i] = verdict
  end

  -- First what needs memory: a server that has none refuses the first write of a script, and none after it.
  if any then
    local length, others = 0, nil
    for m = 1, different do
      if last[m] then
        if home[m] == 0 then
          values[length + 1], values[length + 2] = fields[m], known[m]
          length = length + 2
        else
          others = others or {}
          local list = others[home[m]]
          if list then
            local n = #list
            list[n + 1], list[n + 2] = fields[m], known[m]
          else
            others[home[m]] = { fields[m], known[m] }
          end
        end
      end
    end
    if length > 0 then call('HSET', pending, unpack(values, 1, length)) end
    if others then
      for bucket, list in pairs(others) do call('HSET', pending .. ':' .. bucket, unpack(list)) end
    end
    if spread ~= spread_before then call('HSET', meta, 'spread', spread) end
    if was_empty then call('HSETNX', meta, 'dirty', now) end
    local empty
    for m = 1, different do
      local i = last[m]
      if i and cell_size[i] > 0 then
        local fresh, dead, head, rest_at = unpack_('>I8I8c4', raw, cell_at[i])
        local rest = sub(raw, rest_at, cell_at[i] + cell_size[i] - 1)
        call('SET', cells .. fields[m], head .. pack('>I8I8', now + fresh, now + dead) .. rest, 'PX', dead)
      elseif i and kinds[i] ~= APPENDED then
        empty = empty or {}
        empty[#empty + 1] = cells .. fields[m]
      end
    end
    -- Which takes any reader's lease away, too.
    if empty then call('DEL', unpack(empty)) end
  end
  local reply = table.concat(verdicts, '', 1, writes)
  call('SET', seen, pack('>d', seq) .. reply, 'PX', seen_ms)
  return { reply, count }
end

local replies = {}
for n = 1, #KEYS / 3 do
  local key, at = 3 * n, 3 * n + 2
  local done, reply = pcall(merge, KEYS[key - 2], KEYS[key - 1], KEYS[key], ARGV[at], ARGV[at + 1], ARGV[at + 2])
  if not done and type(reply) ~= 'table' then reply = { err = tostring(reply) } end
  replies[n] = reply
end
return replies
