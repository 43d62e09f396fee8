-- A keeper's tick: how many bells the keepers' Celery list lacks: one, if anything can be sent now.
-- Keys:  turns deliver_bells
-- Reply: 0 | 1
local now = now_ms()
for _, standing in ipairs({'proven', 'unproven'}) do
  local next = redis.call('ZRANGE', K.turns(standing), 0, 0, 'WITHSCORES')[2]
  if next and tonumber(next) <= now + 1 then return redis.call('LLEN', K.deliver_bells) == 0 and 1 or 0 end
end
return 0
