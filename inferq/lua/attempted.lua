-- Notes how an attempt at a delivery went, and what becomes of the delivery.
-- ARGV 1: delivery  2: number of the attempt  3: JSON {good, gone, down, unsent, status, ms, error, retry_ms}: 2xx, 410,
--         whether the receiver as a whole seems to be down, whether it was not asked at all, its status code, how long it
--         took, what was wrong in words, its Retry-After  4: JSON list of ms to wait after each failure  5: a number from 0 to 1, for jitter
-- Keys:  job retention turns receivers receiver due sending delivery attempts dead_deliveries disabled
--        transitions outbox_totals undelivered
-- Reply: delivered | again | dead | late (not this attempt's any more; a good one counts all the same) | forgotten
even_when_full()
local id, number = ARGV[1], ARGV[2]
local a, waits, now = cjson.decode(ARGV[3]), cjson.decode(ARGV[4]), now_ms()
local d = record(K.delivery(id))
if not d then return 'forgotten' end
local began = redis.call('HGET', K.attempts(id), number)
if not began then return 'forgotten' end
local entry = cjson.decode(began)
if entry.ms then return 'late' end  -- told before
entry.ms, entry.status, entry.error = a.ms, a.status, a.error
redis.call('HSET', K.attempts(id), number, cjson.encode(entry))

local BREAKER = 5   -- failures of a receiver in a row, of the kind that concerns all, that open its breaker
local QUICK = 1000  -- ms within which a proven receiver answers
local function judge(receiver)
  if a.unsent then return end
  local standing = (a.down or a.ms > QUICK) and 'unproven' or a.good and 'proven'
  if standing then redis.call('HSET', K.receiver(receiver), 'standing', standing) end
  if a.good then
    redis.call('HSET', K.receiver(receiver), 'good', 1, 'failures', 0, 'open_until_ms', 0)
  elseif a.down then
    local failures = redis.call('HINCRBY', K.receiver(receiver), 'failures', 1)
    local open = failures >= BREAKER and math.min(300000, 5000 * 2 ^ (failures - BREAKER) * (0.9 + 0.2 * ARGV[5])) or 0
    redis.call('HSET', K.receiver(receiver), 'good', 0, 'open_until_ms', math.floor(now + open))
  end
  redis.call('PEXPIRE', K.receiver(receiver), RECEIVER_MS)
end

judge(d.receiver)
local MOST_DISABLED = 1000  -- addresses of a tenant that are remembered to be gone
local outcome = 'late'
if d.status == 'pending' and (a.good or d.number == number) then
  redis.call('ZREM', K.sending(d.receiver), id)
  redis.call('ZREM', K.due(d.receiver), id)
  local step = tonumber(d.step) + 1
  if a.good then
    outcome = 'delivered'
    if d.job == '' then redis.call('ZREM', K.disabled(d.tenant), d.url) end
    end_delivery(id, d, 'delivered', now)
  elseif a.gone or d.job == '' or step > #waits then
    outcome = 'dead'
    if a.gone and d.job ~= '' then
      redis.call('ZADD', K.disabled(d.tenant), now, d.url)
      redis.call('ZREMRANGEBYRANK', K.disabled(d.tenant), 0, -MOST_DISABLED - 1)
    end
    redis.call('HSET', K.delivery(id), 'reason', a.gone and 'gone' or 'retries')
    end_delivery(id, d, 'dead', now)
  else
    outcome = 'again'
    local wait = math.max(waits[step] * (0.9 + 0.2 * ARGV[5]), math.min(a.retry_ms or 0, 86400000))
    redis.call('HSET', K.delivery(id), 'step', step)
    redis.call('HINCRBY', K.delivery(id), 'since_ms', math.floor(wait - waits[step]))  -- its own wish is no delay
    redis.call('ZADD', K.due(d.receiver), math.floor(now + wait), id)
  end
end
line_up(d.receiver)
return outcome
