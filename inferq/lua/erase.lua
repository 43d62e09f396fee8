-- Erases a finished job of the caller: prompt, output and record; a tombstone stays for 7 days.
-- ARGV 1: JSON {key, digest or token, request, limit, job}
-- Keys:  job gone tenant_jobs retention run request output events members dead_letters sharing leases engine arrivals
--        queue struck solitary aboard tenant tenants api_key window turns receivers receiver due sending delivery
--        attempts dead_deliveries undelivered
-- Reply: unauthorized | limited tenant rates policy | unknown tenant rates | gone tenant rates | live tenant rates | erased tenant rates
local a = cjson.decode(ARGV[1])
local who, j, refusal = enter_job(a, now_ms())
if refusal then return refusal end
if not TERMINAL[j.status] then return {'live', who.tenant, who.rates} end
forget(a.job, j)
return {'erased', who.tenant, who.rates}
