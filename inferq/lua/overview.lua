-- What is waiting, and who is ready: the state of every engine.
-- ARGV 1: JSON {key, digest, request, limit} or "" when an operator's process asks
-- Keys:  memory api_key window engines engine queue struck solitary engine_workers worker leases run members job
-- Reply: unauthorized | limited tenant rate |
--        overview tenant rate {{engine, depth, oldest created ms or 0, slots, paused (0|1), {{worker id, {fields}}, ...}}, ...} running now full (0|1)
local now = now_ms()
local tenant, rate = '', {0, 0, 0}
if ARGV[1] ~= '' then
  local who, refusal = enter(cjson.decode(ARGV[1]), 'polls', now)
  if refusal then return refusal end
  tenant, rate = who.tenant, who.rate
end
even_when_full()
local engines = {}
for _, engine in ipairs(redis.call('SMEMBERS', K.engines)) do
  count_slots(engine, now)
  local oldest = 0
  local first = redis.call('ZRANGE', K.queue(engine), 0, 0)[1]
  if first then
    local job = redis.call('ZRANGE', K.members(first), 0, 0)[1]
    oldest = job and tonumber(redis.call('HGET', K.job(job), 'created_ms')) or 0
  end
  local workers = {}
  for _, id in ipairs(redis.call('ZRANGE', K.engine_workers(engine), 0, -1)) do
    workers[#workers + 1] = {id, redis.call('HGETALL', K.worker(id))}
  end
  engines[#engines + 1] = {engine, waiting(engine), oldest,
    tonumber(redis.call('HGET', K.engine(engine), 'slots')),
    redis.call('HEXISTS', K.engine(engine), 'paused_ms'), workers}
end
return {'overview', tenant, rate, engines, redis.call('ZCARD', K.leases), now,
  full(now) and 1 or 0}
