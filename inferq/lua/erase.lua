-- Erases a finished job of the caller: prompt, output and record; a tombstone stays for 7 days.
-- ARGV 1: JSON {key, digest, request, limit, job}
-- Keys:  api_key window job gone retention tenant_jobs members run request output
-- Reply: unauthorized | limited tenant rate | unknown tenant rate | gone tenant rate | live tenant rate | erased tenant rate
local a = cjson.decode(ARGV[1])
local who, refusal = enter(a, 'polls', now_ms())
if refusal then return refusal end
local j, absent = owned(a.job, who.tenant, who.rate)
if absent then return absent end
if not TERMINAL[j.status] then return {'live', who.tenant, who.rate} end
forget(a.job, j)
return {'erased', who.tenant, who.rate}
