-- What is waiting, and who is ready: the state of every engine.
-- ARGV 1: JSON {key, digest or token, request, limit} or "" when an operator's process asks
-- Keys:  leases engines engine arrivals flows waiting_jobs active queue struck solitary engine_workers worker
--        memory tenant tenants api_key window
-- Reply: unauthorized | limited tenant rates policy |
--        overview tenant rates {{engine, depth, arrival ms of the oldest or 0, slots, paused (0|1), {{worker id, {fields}}, ...},
--        {high, normal, low} jobs that wait, tokens that wait, ms-to-wait-or-nil}, ...} running now full (0|1)
-- ms to wait: of a job of common size from the caller, or from a tenant without any waiting.
local now = now_ms()
local tenant, rates, refusal = asked_of(ARGV[1], '', now)
if refusal then return refusal end
even_when_full()
local COMMON = 300  -- tokens of a job when none waits to tell
local engines = {}
for _, engine in ipairs(redis.call('SMEMBERS', K.engines)) do
  count_slots(engine, now)
  local oldest = tonumber(redis.call('ZRANGE', K.arrivals(engine), 0, 0, 'WITHSCORES')[2] or 0)
  local workers = {}
  for _, id in ipairs(redis.call('ZRANGE', K.engine_workers(engine), 0, -1)) do
    workers[#workers + 1] = {id, redis.call('HGETALL', K.worker(id))}
  end
  local e = redis.call('HMGET', K.engine(engine), 'waiting_high', 'waiting_normal', 'waiting_low', 'tokens')
  for i = 1, 4 do e[i] = tonumber(e[i] or 0) end
  local depth = waiting(engine)
  local cost = depth > 0 and math.ceil(e[4] / depth) or COMMON
  local tag = quote(engine, tenant, 'normal', cost)
  local order, fair = expected_wait(engine, tag, redis.call('ZCOUNT', K.queue(engine), '-inf', tag), cost,
    redis.call('HEXISTS', K.active(engine), tenant) == 1 and 0 or weight_of(tenant))
  engines[#engines + 1] = {engine, depth, oldest, tonumber(redis.call('HGET', K.engine(engine), 'slots')),
    redis.call('HEXISTS', K.engine(engine), 'paused_ms'), workers, {e[1], e[2], e[3]}, e[4],
    order and math.min(order, fair) or false}
end
return {'overview', tenant, rates, engines, redis.call('ZCARD', K.leases), now,
  full(now) and 1 or 0}
