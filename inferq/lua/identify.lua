-- Who is calling, counted in a rate window, and nothing else. A call that repeats a submission is counted as a poll.
-- ARGV 1: JSON {key, digest or token, request, limit, polls, idempotency (optional: the Idempotency-Key's digest)}
--      2: window (requests or polls)
-- Keys:  idempotency tenant tenants api_key window
-- Reply: unauthorized | limited tenant rates policy | known tenant rates now
local now = now_ms()
local a = cjson.decode(ARGV[1])
local who, stranger = authenticate(a)
if not who then return stranger end
local refusal
if a.idempotency and redis.call('EXISTS', K.idempotency(who.tenant, a.idempotency)) == 1 then
  refusal = count_call(who, 'polls', a.polls, a.request, now)
else
  refusal = count_call(who, ARGV[2], a.limit, a.request, now)
end
return refusal or {'known', who.tenant, who.rates, now}
