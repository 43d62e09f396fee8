-- Who is calling, counted in a rate window, and nothing else.
-- ARGV 1: JSON {key, digest, request, limit}  2: window (requests or polls)
-- Keys:  api_key window
-- Reply: unauthorized | limited tenant rate | known tenant rate now
local now = now_ms()
local who, refusal = enter(cjson.decode(ARGV[1]), ARGV[2], now)
if refusal then return refusal end
return {'known', who.tenant, who.rate, now}
