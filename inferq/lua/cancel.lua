-- Cancels one job of the caller: at once while it waits, after the engine has freed it while it runs alone.
-- ARGV 1: JSON {key, digest or token, request, limit, job}
-- Keys:  job gone idempotency deadlines retention run request output events members dead_letters sharing leases engine
--        arrivals flows paces waiting_jobs active queue struck solitary aboard tenant usage in_flight amounts
--        tenants api_key window turns receivers receiver due sending delivery transitions aborts outbox totals
--        undelivered
-- Reply: unauthorized | limited tenant rates policy | unknown tenant rates | gone tenant rates |
--        ended tenant rates status | cancelled tenant rates | cancelling tenant rates
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, j, refusal = enter_job(a, now)
if refusal then return refusal end
if j.status == 'cancelled' or j.status == 'cancelling' then return {j.status, who.tenant, who.rates} end
if TERMINAL[j.status] then return {'ended', who.tenant, who.rates, j.status} end
return {leave(a.job, j, 'cancelled', now), who.tenant, who.rates}
