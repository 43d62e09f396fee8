-- The deliveries of a job of the caller, with all attempts; and one of them sent again when asked to.
-- ARGV 1: JSON {key, digest or token, request, limit, job, again (optional: delivery)}
-- Keys:  job gone retention tenant tenants api_key window turns receivers receiver due sending delivery attempts
--        dead_deliveries disabled outbox undelivered
-- Reply: unauthorized | limited tenant rates policy | unknown tenant rates | gone tenant rates |
--        no_delivery tenant rates | disabled tenant rates |
--        deliveries tenant rates {{id, {fields}, {attempt, JSON, ...}, due ms or nil, under way (0|1)}, ...}
-- Replay: what waits already is due at once, as it was.
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, j, refusal = enter_job(a, now)
if refusal then return refusal end
if a.again then
  local d = record(K.delivery(a.again))
  if not d or d.job ~= a.job then return {'no_delivery', who.tenant, who.rates} end
  if redis.call('ZSCORE', K.disabled(d.tenant), d.url) then return {'disabled', who.tenant, who.rates} end
  deliver_again(a.again, d, now)
end
local out = {}
for _, event in ipairs(EVENTS) do
  local id = event_id(a.job, event)
  local d = record(K.delivery(id))
  if d and (not a.again or id == a.again) then out[#out + 1] = delivery_shown(id, d) end
end
return {'deliveries', who.tenant, who.rates, out}
