-- The layout of cells and generations, as in entry.py; put in front of every script of the key protocol,
-- and once in front of many calls of one.
--   value       V version codec flags fresh_until(8) dead_after(8) cost(4) id(8) refresh_token(8) refresh_until(8) ...
--   lease       L token(8)
--   writing     W overlapped(1: '0' or '1') { token(8) deadline(8) }*
--   generation  G microseconds(8) salt(4)
-- Integers are big-endian, times are milliseconds of this server. Every script replies { outcome, now, cell or false }.
local EMPTY, LEASED, VALUE, HELD, WRITING, STORED, REFUSED = 0, 1, 2, 3, 4, 5, 6
local VERSION, VALUE_HEADER, ID_AT, REFRESH_AT = 1, 58, 25, 33
local NO_TOKEN = string.rep('\0', 8)
local GENERATION_MS = 30 * 86400000

local clock = redis.call('TIME') -- the same for as long as a script runs
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local KEY, raw, is_value, is_lease, is_writing, is_generation

-- Reads the cell that the script is about; called before it, with KEYS[1].
local function look(key)
  KEY = key
  raw = redis.pcall('GET', KEY)
  if type(raw) == 'table' then raw = '?' end -- a key of another type: not ours, and may be replaced
  local kind = raw and string.sub(raw, 1, 1)
  is_value = kind == 'V' and #raw >= VALUE_HEADER and string.byte(raw, 2) == VERSION
  is_lease = kind == 'L' and #raw == 9
  is_writing = kind == 'W' and #raw >= 2 and (#raw - 2) % 16 == 0
  is_generation = kind == 'G' and #raw == 13
end

local function int(value) return struct.pack('>I8', value) end
local function int_at(bytes, at) return (struct.unpack('>I8', bytes, at)) end

-- Whether the cell holds this reader's token, as a lease or as the refresh lease of a value.
local function holds(token)
  return (is_lease and string.sub(raw, 2) == token)
    or (is_value and string.sub(raw, REFRESH_AT, REFRESH_AT + 7) == token)
end

local function become_empty() redis.call('DEL', KEY) end

-- Stores a value whose life (fresh and dead, in milliseconds from now) is counted on this server's clock.
local function become_value(fresh_ms, dead_ms, head, rest)
  redis.call('SET', KEY, head .. int(now + fresh_ms) .. int(now + dead_ms) .. rest, 'PX', dead_ms)
end

-- Names who may refresh the value, until when; its life stays as it is.
local function set_refresh(token, until_ms)
  redis.call('SETRANGE', KEY, REFRESH_AT - 1, token .. int(until_ms))
end

-- The writers in flight other than `token`, without those past their deadline; then whether `token` was among them,
-- whether any other was (past its deadline or not), and the latest deadline.
local function other_writers(token)
  local others, mine, any, latest = {}, false, false, 0
  for at = 3, #raw, 16 do
    local deadline = int_at(raw, at + 8)
    if string.sub(raw, at, at + 7) == token then
      mine = true
    else
      any = true
      if deadline > now then
        others[#others + 1] = string.sub(raw, at, at + 15)
        if deadline > latest then latest = deadline end
      end
    end
  end
  return table.concat(others), mine, any, latest
end

local function become_writing(overlapped, writers, latest)
  redis.call('SET', KEY, 'W' .. (overlapped and '1' or '0') .. writers, 'PX', latest - now)
end

-- A writing cell that something happened to while the writers were away.
local function overlap() redis.call('SETRANGE', KEY, 1, '1') end

-- Begins a generation that has never been: server time, or the old one plus one if the clock went back.
local function become_generation(salt)
  local micros = clock[1] * 1000000 + clock[2]
  if is_generation then
    local last = int_at(raw, 2)
    if last >= micros then micros = last + 1 end
  end
  local generation = 'G' .. int(micros) .. salt
  redis.call('SET', KEY, generation, 'PX', GENERATION_MS)
  return generation
end
