"""The Lua scripts that Redis runs: one call for each operation, atomic, on Redis's own clock. For Redis 6.2 and 7.

Keys
    slots of running requests   a sorted set: request id, scored with the time its slot is free (microseconds)
    a window                    a string: a header of five doubles and a ring of buckets, 8 KiB at most
    processes                   a sorted set: a process's name, scored with the time it is forgotten (microseconds)
    a receipt                   a string: when the request was counted (microseconds), while its slot may be held

A window in a string costs the same few range reads however many buckets it has, and a tenth of a hash's memory.
Times and amounts are doubles, exact up to 2**53.
"""

from hashlib import sha1

from apps.policies.rates.base import BUCKETS_IN_A_WINDOW, SLOT_WAIT_SECONDS

_CONSTANTS = f"""
local SPAN, CAPACITY = {BUCKETS_IN_A_WINDOW}, {BUCKETS_IN_A_WINDOW + 2}
local SLOT_WAIT = {SLOT_WAIT_SECONDS * 1e6:.0f}
"""

_COMMON = """
local HEADER, ENTRY, SPARE_MS = 40, 16, 1000
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- Where the bucket at a position stands in the string; position 0 is the oldest.
local function offset(w, position)
  return HEADER + ((w.head + position) % CAPACITY) * ENTRY
end

local function bucket(w, position)
  local at = offset(w, position)
  return struct.unpack('<dd', redis.call('GETRANGE', w.key, at, at + ENTRY - 1))
end

local function save(w)
  redis.call('SETRANGE', w.key, 0, struct.pack('<ddddd', w.total, w.head, w.count, w.oldest, w.newest))
end

local function forget(w)
  w.total, w.head, w.count, w.oldest, w.newest = 0, 0, 0, 0, 0
end

-- Drop the buckets that ended a window ago.
local function evict(w)
  local before = w.count
  while w.count > 0 and w.index - w.oldest > SPAN do
    local _, amount = bucket(w, 0)
    w.total, w.head, w.count = w.total - amount, (w.head + 1) % CAPACITY, w.count - 1
    if w.count > 0 then w.oldest = bucket(w, 0) end
  end
  if w.count ~= before then
    if w.count == 0 then forget(w) end
    save(w)
  end
end

local function open_window(key, microseconds)
  local w = {key = key, width = microseconds / SPAN}
  forget(w)
  w.index = math.floor(now / w.width)
  local header = redis.call('GETRANGE', key, 0, HEADER - 1)
  if #header == HEADER then
    w.total, w.head, w.count, w.oldest, w.newest = struct.unpack('<ddddd', header)
  end
  if w.count > 0 then
    -- A clock that was set back counts on in the newest bucket; one that went back by a window starts afresh.
    if w.newest > w.index + SPAN then forget(w) else w.index = math.max(w.index, w.newest) end
    evict(w)
  end
  return w
end

local function add(w, amount)
  if amount == 0 then return end
  local counted, is_new = 0, w.count == 0 or w.newest ~= w.index
  if is_new then
    w.count, w.newest = w.count + 1, w.index
    if w.count == 1 then w.oldest = w.index end
  else
    local _, before = bucket(w, w.count - 1)
    counted = before
  end
  w.total = w.total + amount
  save(w)
  redis.call('SETRANGE', w.key, offset(w, w.count - 1), struct.pack('<dd', w.index, counted + amount))
  if is_new then
    redis.call('PEXPIRE', w.key, math.ceil(w.width * (SPAN + 2) / 1000) + SPARE_MS)
  end
end

-- Take up to an amount out of the bucket it was counted in, if that is still there.
local function take_out(w, amount, counted_at)
  local wanted, low, high = math.floor(counted_at / w.width), 0, w.count - 1
  while low <= high do
    local middle = math.floor((low + high) / 2)
    local index, counted = bucket(w, middle)
    if index == wanted then
      amount = math.min(amount, counted)
      w.total = w.total - amount
      save(w)
      redis.call('SETRANGE', w.key, offset(w, middle), struct.pack('<dd', index, counted - amount))
      return
    elseif index < wanted then low = middle + 1
    else high = middle - 1 end
  end
end

-- Microseconds until the oldest buckets, an amount together, have left; -1 if there is not as much.
local function wait(w, amount)
  local all = redis.call('GETRANGE', w.key, 0, -1)
  for position = 0, w.count - 1 do
    local index, counted = struct.unpack('<dd', all, offset(w, position) + 1)
    amount = amount - counted
    if amount <= 0 then return math.max(0, math.ceil((index + 1 + SPAN) * w.width - now)) end
  end
  return -1
end

local function slots_of_others(key, request_id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  local held = redis.call('ZCARD', key)
  if redis.call('ZSCORE', key, request_id) then held = held - 1 end
  return held
end

local function slot_wait(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return math.min(SLOT_WAIT, math.ceil(tonumber(first[2]) - now))
end

local function reset(c)
  local excess = c.held + c.cost - c.limit
  if c.cost > c.limit then return -1 end
  if c.cost == 0 or excess <= 0 then return 0 end
  if c.window then return wait(c.window, excess) end
  return slot_wait(c.key)
end

-- The counters of KEYS[2..]; each has a cost, a limit and a window (microseconds, 0 for slots) from ARGV[3] on.
local function read_counters(request_id)
  local counters, fits = {}, true
  for i = 2, #KEYS do
    local at = 3 * (i - 1)
    local c = {key = KEYS[i], cost = tonumber(ARGV[at]), limit = tonumber(ARGV[at + 1])}
    local microseconds = tonumber(ARGV[at + 2])
    if microseconds > 0 then
      c.window = open_window(c.key, microseconds)
      c.held = c.window.total
    else
      c.held = slots_of_others(c.key, request_id)
    end
    if c.cost > math.max(0, c.limit - c.held) then fits = false end
    counters[#counters + 1] = c
  end
  return counters, fits
end

-- Whether it fits, then what remains and the microseconds until as much is free, for each counter.
local function answer(counters, fits)
  local reply = {fits and 1 or 0}
  for _, c in ipairs(counters) do
    reply[#reply + 1] = math.max(0, c.limit - c.held)
    reply[#reply + 1] = reset(c)
  end
  return reply
end
"""

_TAKE = """
-- KEYS: receipt, counters. ARGV: request id, milliseconds to hold, then the counters'.
local request_id, hold = ARGV[1], tonumber(ARGV[2])
local counters, fits = read_counters(request_id)
if fits then
  for _, c in ipairs(counters) do
    if c.window then
      add(c.window, c.cost)
      c.held = c.window.total
    else
      redis.call('ZADD', c.key, now + hold * 1000, request_id)
      if redis.call('PTTL', c.key) < hold then redis.call('PEXPIRE', c.key, hold + SPARE_MS) end
      c.held = c.held + 1
    end
  end
  redis.call('SET', KEYS[1], now, 'PX', hold)
end
return answer(counters, fits)
"""

_PEEK = """
-- KEYS: receipt (of nobody), counters. ARGV: no request id, no hold, then the counters'.
return answer(read_counters(''))
"""

_SETTLE = """
-- KEYS: receipt, counters. ARGV: request id, then a change and a window (microseconds, 0 for slots) for each counter.
local counted_at = tonumber(redis.call('GET', KEYS[1]) or '')
redis.call('DEL', KEYS[1])
for i = 2, #KEYS do
  local change, microseconds = tonumber(ARGV[2 * i - 2]), tonumber(ARGV[2 * i - 1])
  if microseconds == 0 then
    redis.call('ZREM', KEYS[i], ARGV[1])
  elseif counted_at and change > 0 then
    add(open_window(KEYS[i], microseconds), change)
  elseif counted_at and change < 0 then
    take_out(open_window(KEYS[i], microseconds), -change, counted_at)
  end
end
return 1
"""


_COUNT = """
-- KEYS: processes. ARGV: the name of one that is there, milliseconds to remember it. Returns how many there are.
local hold = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + hold * 1000, ARGV[1])
redis.call('PEXPIRE', KEYS[1], hold + SPARE_MS)
return redis.call('ZCARD', KEYS[1])
"""


class Script:
    """A script and the digest that Redis knows it by."""

    def __init__(self, body: str) -> None:
        self.text = _CONSTANTS + _COMMON + body
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


TAKE, PEEK, SETTLE, COUNT = Script(_TAKE), Script(_PEEK), Script(_SETTLE), Script(_COUNT)
