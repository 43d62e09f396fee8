-- Gives a keeper deliveries to send now, under leases; those whose keeper has vanished first.
-- ARGV 1: most to proven receivers  2: most to others  3: lease in ms  4: ms after which a delivery is given up
-- Keys:  receivers receiver due sending delivery attempts dead_deliveries disabled webhook_secrets job retention
-- Reply: {{id, attempt, url, body, secrets, proven (0|1)}, ...}
-- Replay: what the lost reply named is under a lease, and is taken again when that has ended.
even_when_full()
local now = now_ms()
local lease, patience = tonumber(ARGV[3]), tonumber(ARGV[4])
local LOOKS = 200  -- at deliveries, in one script

local looked = 0
local function take(receiver)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', K.sending(receiver), '-inf', now, 'LIMIT', 0, 50)) do
    redis.call('ZREM', K.sending(receiver), id)
    redis.call('ZADD', K.due(receiver), now, id)
  end
  local said = redis.call('HMGET', K.receiver(receiver), 'standing', 'open_until_ms')
  if tonumber(said[2] or 0) > now then return nil end
  if redis.call('ZCARD', K.sending(receiver)) >= AT_ONCE[said[1] or 'unproven'] then return nil end
  while looked < LOOKS do
    local id = redis.call('ZRANGEBYSCORE', K.due(receiver), '-inf', now, 'LIMIT', 0, 1)[1]
    if not id then return nil end
    looked = looked + 1
    redis.call('ZREM', K.due(receiver), id)
    local d = record(K.delivery(id))
    if not d then
      -- Erased: what is left of it is its place in the line.
    elseif d.job ~= '' and redis.call('HEXISTS', K.disabled(d.tenant), d.url) == 1 then
      redis.call('HSET', K.delivery(id), 'reason', 'disabled')
      end_delivery(id, d, 'dead', now)
    elseif now - d.since_ms > patience then
      redis.call('HSET', K.delivery(id), 'reason', 'too_late')
      end_delivery(id, d, 'dead', now)
    else
      local number = redis.call('HINCRBY', K.delivery(id), 'number', 1)
      redis.call('ZADD', K.sending(receiver), now + lease, id)
      redis.call('HSET', K.attempts(id), number, cjson.encode({at_ms = now}))
      redis.call('ZREMRANGEBYSCORE', K.webhook_secrets(d.tenant), '-inf', now)
      return {id, number, d.url, d.body, redis.call('ZREVRANGE', K.webhook_secrets(d.tenant), 0, -1),
        said[1] == 'proven' and 1 or 0}
    end
  end
  return nil
end

local taken = {}
for i, standing in ipairs({'proven', 'unproven'}) do
  local room = tonumber(ARGV[i])
  while room > 0 and looked < LOOKS do
    local receiver = redis.call('ZRANGEBYSCORE', K.receivers(standing), '-inf', now, 'LIMIT', 0, 1)[1]
    if not receiver then break end
    looked = looked + 1
    local one = take(receiver)
    line_up(receiver)
    if one then
      taken[#taken + 1] = one
      room = room - 1
    end
  end
end
return taken
