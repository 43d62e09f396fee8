-- Gives a keeper deliveries to send now, under leases; those whose keeper has vanished first.
-- ARGV 1: most to proven receivers  2: most to others  3: lease in ms  4: ms after which a delivery is given up
-- Keys:  job retention turns receivers receiver due sending delivery attempts dead_deliveries webhook_secrets
--        disabled transitions outbox_totals undelivered
-- Reply: {{{id, attempt, url, body, secrets, proven (0|1), event, request-id-or-nil, trace-or-nil}, ...}, more (0|1: there was no time to look at all)}
-- Replay: what the lost reply named is under a lease, and is taken again when that has ended.
even_when_full()
local now = now_ms()
local lease, patience = tonumber(ARGV[3]), tonumber(ARGV[4])
local LOOKS = 100         -- at receivers and deliveries of one standing, in one script
local MOST_ATTEMPTS = 100 -- that a delivery's log keeps

-- What becomes of a delivery that is due: a reason not to send it any more, or nil.
local function hopeless(d)
  if d.job ~= '' and redis.call('ZSCORE', K.disabled(d.tenant), d.url) then return 'disabled' end
  if tonumber(d.number) > 0 and now - d.since_ms > patience then return 'too_late' end
  return nil
end

local looked
local function take(receiver, standing)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', K.sending(receiver), '-inf', now, 'LIMIT', 0, 50)) do
    redis.call('ZREM', K.sending(receiver), id)
    redis.call('ZADD', K.due(receiver), now, id)
  end
  local till = tonumber(redis.call('HGET', K.receiver(receiver), 'open_until_ms') or 0)
  if till > now or redis.call('ZCARD', K.sending(receiver)) >= at_once(receiver) then return nil end
  while looked < LOOKS do
    local id = redis.call('ZRANGEBYSCORE', K.due(receiver), '-inf', now, 'LIMIT', 0, 1)[1]
    if not id then return nil end
    looked = looked + 1
    redis.call('ZREM', K.due(receiver), id)
    local d = record(K.delivery(id))
    local reason = d and hopeless(d)
    if reason then
      redis.call('HSET', K.delivery(id), 'reason', reason)
      end_delivery(id, d, 'dead', now)
    elseif d then
      local number = redis.call('HINCRBY', K.delivery(id), 'number', 1)
      redis.call('ZADD', K.sending(receiver), now + lease, id)
      redis.call('HSET', K.attempts(id), number, cjson.encode({at_ms = now}))
      redis.call('HDEL', K.attempts(id), number - MOST_ATTEMPTS)
      redis.call('ZREMRANGEBYSCORE', K.webhook_secrets(d.tenant), '-inf', now)
      return {id, number, d.url, d.body, redis.call('ZREVRANGE', K.webhook_secrets(d.tenant), 0, -1),
        standing == 'proven' and 1 or 0, d.event, d.request_id or false, d.trace or false}
    end
  end
  return nil
end

local taken, more = {}, 0
for i, standing in ipairs({'proven', 'unproven'}) do
  local room, turns = tonumber(ARGV[i]), K.turns(standing)
  looked = 0
  while room > 0 do
    local tenant = redis.call('ZRANGEBYSCORE', turns, '-inf', now + 1, 'LIMIT', 0, 1)[1]
    if not tenant then break end
    if looked >= LOOKS then
      more = 1
      break
    end
    looked = looked + 1
    local lines = K.receivers(standing, tenant)
    local receiver = redis.call('ZRANGEBYSCORE', lines, '-inf', now, 'LIMIT', 0, 1)[1]
    if receiver then
      local one = take(receiver, standing)
      line_up(receiver)
      if one then
        taken[#taken + 1] = one
        room = room - 1
      end
    end
    -- Its next turn comes after those of all who wait now, also of those that wait since this very millisecond.
    local first = tonumber(redis.call('ZRANGE', lines, 0, 0, 'WITHSCORES')[2] or nil)
    if first and first <= now then
      local last = redis.call('ZREVRANGEBYSCORE', turns, now + 1, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
      redis.call('ZADD', turns, string.format('%.3f', math.max(now, last + 0.001)), tenant)
    elseif first then
      redis.call('ZADD', turns, first, tenant)
    end
  end
end
return {taken, more}
