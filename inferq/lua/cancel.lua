-- Cancels one job of the caller: at once while it waits, after the engine has freed it while it runs alone.
-- ARGV 1: JSON {key, digest, request, limit, job}
-- Keys:  api_key tenant window job gone run members queue engine flows waiting_jobs active sharing in_flight
--        usage amounts idempotency leases deadlines retention request output aborts
-- Reply: unauthorized | limited tenant rates policy | unknown tenant rates | gone tenant rates |
--        ended tenant rates status | cancelled tenant rates | cancelling tenant rates
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, refusal = enter(a, 'polls', now)
if refusal then return refusal end
local j, absent = owned(a.job, who)
if absent then return absent end
if j.status == 'cancelled' or j.status == 'cancelling' then return {j.status, who.tenant, who.rates} end
if TERMINAL[j.status] then return {'ended', who.tenant, who.rates, j.status} end
return {leave(a.job, j, 'cancelled', now), who.tenant, who.rates}
