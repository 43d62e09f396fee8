-- One job of the caller for who follows its events, with what its running attempt has written after a place.
-- ARGV 1: JSON {key, digest or token, request, limit, job, first (counted as a poll)}  2: the place, as <fence>-<bytes>
--      3: most pieces
-- Keys:  job gone run output events engine queue struck solitary tenant tenants api_key window
-- Reply: unauthorized | limited tenant rates policy | unknown tenant rates | gone tenant rates |
--        job tenant rates {job fields} {run fields} output-or-nil rank-or-nil ms-to-wait-or-nil {{id, {t, text}}, ...}
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, j, refusal
if a.first then
  who, j, refusal = enter_job(a, now)
else
  who, refusal = authenticate(a)  -- a key that has been revoked follows no longer, nor does a suspended tenant
  if not who then return refusal end
  if redis.call('HEXISTS', K.tenant(who.tenant), 'suspended_ms') == 1 then
    return {'unauthorized', '', {}, 'tenant_suspended'}
  end
  j, refusal = job_of(who, a.job)
end
if refusal then return refusal end
if j.expires_ms and tonumber(j.expires_ms) <= now then return {'gone', who.tenant, who.rates} end
local pieces = {}
if not TERMINAL[j.status] then
  local fence = redis.call('HGET', K.run(j.run), 'fence')
  local from = ARGV[2]:match('^%d+') == fence and '(' .. ARGV[2] or '-'
  pieces = redis.call('XRANGE', K.events(j.run), from, '+', 'COUNT', ARGV[3])
end
local job, run, output, rank, wait = shown(j)
return {'job', who.tenant, who.rates, job, run, output, rank, wait, pieces}
