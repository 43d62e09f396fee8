-- Sends a test event to an address of the caller's tenant, or tells how that went.
-- ARGV 1: JSON {key, digest or token, request, limit, id, url (not given: only tell), request_id, trace}
-- Keys:  memory tenant tenants api_key window turns receivers receiver due sending delivery attempts webhook_secrets
--        outbox undelivered
-- Reply: unauthorized | limited tenant rates policy | no_secret tenant rates | no_memory tenant rates |
--        unknown tenant rates |
--        deliveries tenant rates {one, as in deliveries}
-- Replay: the delivery is there already.
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, refusal = enter(a, a.url and 'requests' or 'polls', now)
if refusal then return refusal end
if a.url and redis.call('EXISTS', K.delivery(a.id)) == 0 then
  if redis.call('ZCOUNT', K.webhook_secrets(who.tenant), now, '+inf') == 0 then return {'no_secret', who.tenant, who.rates} end
  if full(now) then return {'no_memory', who.tenant, who.rates} end
  local body = cjson.encode({type = 'ping', timestamp = instant(now), data = {id = a.id}})
  pass_breaker(receiver_of(who.tenant, a.url))
  post(a.id, {tenant = who.tenant, event = 'ping', url = a.url, job = '', request_id = a.request_id, trace = a.trace},
    body, 0, now)
end
local d = record(K.delivery(a.id))
if not d or d.tenant ~= who.tenant then return {'unknown', who.tenant, who.rates} end
return {'deliveries', who.tenant, who.rates, {delivery_shown(a.id, d)}}
