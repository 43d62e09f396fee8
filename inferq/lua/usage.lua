-- What a tenant has used, and what it may: asked by itself, or by an operator.
-- ARGV 1: JSON {key, digest or token, request, limit} or "" when an operator asks  2: tenant, when an operator asks
--      3: days to look back, today included
-- Keys:  engines waiting_jobs tenant usage in_flight tenants api_key window
-- Reply: unauthorized | limited tenant rates policy |
--        usage tenant rates {tenant fields} {key, jobs in flight, ...} {engine, {high, normal, low} jobs that wait, ...}
--        {day number, {fields}, ...}
local now = now_ms()
local tenant, rates, refusal = asked_of(ARGV[1], ARGV[2], now)
if refusal then return refusal end
local waits, days, today = {}, {}, math.floor(now / 86400000)
for _, engine in ipairs(redis.call('SMEMBERS', K.engines)) do
  local counts, sum = waiting_of(engine, tenant)
  if sum > 0 then waits[#waits + 1] = engine; waits[#waits + 1] = counts end
end
for day = today, today - math.min(ARGV[3], USAGE_DAYS) + 1, -1 do
  local fields = redis.call('HGETALL', K.usage(tenant, day))
  if #fields > 0 then days[#days + 1] = day; days[#days + 1] = fields end
end
return {'usage', tenant, rates, redis.call('HGETALL', K.tenant(tenant)), redis.call('HGETALL', K.in_flight(tenant)),
  waits, days}
