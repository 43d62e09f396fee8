-- Cancels one job of the caller: at once while it waits, after the engine has freed it while it runs alone.
-- ARGV 1: JSON {key, digest, request, limit, job}
-- Keys:  api_key window job gone run members queue leases deadlines retention request output aborts
-- Reply: unauthorized | limited tenant rate | unknown tenant rate | gone tenant rate |
--        ended tenant rate status | cancelled tenant rate | cancelling tenant rate
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, refusal = enter(a, 'polls', now)
if refusal then return refusal end
local j, absent = owned(a.job, who.tenant, who.rate)
if absent then return absent end
if j.status == 'cancelled' or j.status == 'cancelling' then return {j.status, who.tenant, who.rate} end
if TERMINAL[j.status] then return {'ended', who.tenant, who.rate, j.status} end
return {leave(a.job, j, 'cancelled', now), who.tenant, who.rate}
