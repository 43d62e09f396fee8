-- One job of the caller with what its run knows.
-- ARGV 1: JSON {key, digest or token, request, limit, job}
-- Keys:  job gone run output engine queue struck solitary tenant tenants api_key window
-- Reply: unauthorized | limited tenant rates policy | unknown tenant rates | gone tenant rates |
--        job tenant rates {job fields} {run fields} output-or-nil rank-or-nil ms-to-wait-or-nil
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, j, refusal = enter_job(a, now)
if refusal then return refusal end
if j.expires_ms and tonumber(j.expires_ms) <= now then return {'gone', who.tenant, who.rates} end
return {'job', who.tenant, who.rates, shown(j)}
