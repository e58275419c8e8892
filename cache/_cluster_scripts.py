"""What the cluster's server does in one step each: reads, compares and writes without a gap.

A record stands under ``KEYS[1]``, its lease under ``KEYS[2]``; both carry the same hash tag, so
that a server of a Redis Cluster takes them too. A lease is ``L`` and its holder's token, or ``X``
and the failure in which it ended.
"""

import hashlib
import math

from cache.record import MAGIC, ORDER

COUNTED_AT = slice(ORDER.stop, ORDER.stop + 8)
"""Where a record says in which second it was counted (`cache.record`)."""

# `redis.pcall` shows another type's error as a table. Foreign types under our names are removed;
# any other error is raised by asking once more.
_PRELUDE = """
local bad = 0
local function read(command, name, ...)
  local value = redis.pcall(command, name, ...)
  if type(value) ~= 'table' or not value.err then return value end
  if not string.find(value.err, 'WRONGTYPE', 1, true) then return redis.call(command, name, ...) end
  redis.call('UNLINK', name)
  bad = bad + 1
  return false
end
"""

# Lua's own `<` on strings follows the server's locale, which is not the order of bytes.
_GREATER = """
local function greater(a, b)
  for i = 1, #a do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > (y or -1) end
  end
  return false
end
"""


class Script:
    """A script's text, and the digest under which the server remembers it."""

    def __init__(self, *parts: str) -> None:
        self.text = "".join(parts).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


# ARGV: token, lease in ms, "1" for one that waits already, the least counted_at_s that is
# fresh (8 bytes), the first bytes of every record of ours.
# Reply: tag, payload (a value, a failure, or a value that is too old), bad.
ENTER = Script(
    _PRELUDE,
    _GREATER,
    f"""
local record, stale = read('GET', KEYS[1]), ''
if record then
  local ours = string.sub(record, 1, {len(MAGIC)}) == ARGV[5] and #record >= {COUNTED_AT.stop}
  local counted_at = string.sub(record, {COUNTED_AT.start + 1}, {COUNTED_AT.stop})
  if not ours or not greater(ARGV[4], counted_at) then return {{'found', record, bad}} end
  stale = record
end
local lease = read('GET', KEYS[2])
if lease and lease ~= 'L' .. ARGV[1] then
  if string.sub(lease, 1, 1) == 'L' then return {{'held', stale, bad}} end
  if ARGV[3] == '1' then return {{'failed', string.sub(lease, 2), bad}} end
end
redis.call('SET', KEYS[2], 'L' .. ARGV[1], 'PX', ARGV[2])
return {{'led', stale, bad}}
""",
)


def enter_args(
    token: bytes, lease_ms: int, fresh_from_s: float, *, waited: bool
) -> tuple[bytes, int, str, bytes, bytes]:
    """Compose ENTER's arguments: a record counted after ``fresh_from_s`` is fresh."""
    least = 0 if fresh_from_s < 0 else math.floor(min(fresh_from_s, 2**62)) + 1
    return token, lease_ms, "1" if waited else "", least.to_bytes(8), MAGIC


# ARGV: token, value ("" for none), ttl in ms.  Reply: what stood there, whether stored, bad.
LAND = Script(
    _PRELUDE,
    _GREATER,
    f"""
local function order(value) return string.sub(value, {ORDER.start + 1}, {ORDER.stop}) end
local function kind(value) return string.sub(value, 1, {len(MAGIC)}) end
local before, value, stored = read('GET', KEYS[1]), ARGV[2], 0
if value ~= '' then
  local ours = before and kind(before) == kind(value) and #before >= {ORDER.stop}
  if not ours or not greater(order(before), order(value)) then
    redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
    stored = 1
  end
end
if read('GET', KEYS[2]) == 'L' .. ARGV[1] then redis.call('UNLINK', KEYS[2]) end
return {{before, stored, bad}}
""",
)

# `cache.pace` by the server's clock. KEYS[1] is the state, KEYS[2] the hosts that asked lately.
# ARGV: interval in us, burst, how many are wanted, the host, how many us ago is lately, and how
# many (a burst at most) it took while it could not ask.
# Reply: how many were taken, us until the next slot, number of hosts.
PACE = Script(
    _PRELUDE,
    """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, lately = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local state = tonumber(read('GET', KEYS[1]) or '') or 0
state = math.min(state, now + 2 * burst * interval)
local owed = math.min(tonumber(ARGV[6]), burst)
if owed > 0 then state = math.max(state, now) + owed * interval end
local saved, taken = (burst - 1) * interval, 0
while taken < tonumber(ARGV[3]) and state - saved <= now do
  state = math.max(state, now) + interval
  taken = taken + 1
end
local keep_ms = math.ceil((2 * burst * interval + lately) / 1000)
redis.call('SET', KEYS[1], string.format('%.17g', state), 'PX', keep_ms)
read('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - lately))
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[4])
redis.call('PEXPIRE', KEYS[2], keep_ms)
return {taken, math.ceil(math.max(state - saved - now, 0)), redis.call('ZCARD', KEYS[2])}
""",
)

# KEYS[1] is the lease here.  ARGV: token, lease in ms.  Reply: whether it is still this token's.
RENEW = Script(
    _PRELUDE,
    """
if read('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""",
)

# KEYS[1] is the lease here.  ARGV: token, failure, ms.  Reply: whether it was this token's.
FAIL = Script(
    _PRELUDE,
    """
if read('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'X' .. ARGV[2], 'PX', ARGV[3])
return 1
""",
)

# KEYS[1] is the lease here.  ARGV: token.  Reply: whether it was this token's.
RELEASE = Script(
    _PRELUDE,
    """
if read('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
""",
)

# ARGV: model, generation, and the greatest that is believed, each in 20 digits, so that the order
# of bytes is the order of numbers.
RAISE = Script(
    _PRELUDE,
    _GREATER,
    """
local known = read('HGET', KEYS[1], ARGV[1])
local holds = known and #known == 20 and not greater(known, ARGV[3])
if holds and not greater(ARGV[2], known) then return 1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
""",
)
