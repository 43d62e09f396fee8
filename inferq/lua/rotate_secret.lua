-- Gives a tenant a new secret; those it had go on signing for a while, the latest few of them.
-- ARGV 1: JSON {key, digest or token, request, limit} or "" when an operator asks  2: tenant, when an operator asks
--      3: the new secret  4: ms for which the old ones go on
-- Keys:  memory tenant tenants api_key window webhook_secrets
-- Reply: unauthorized | limited tenant rates policy | no_memory tenant rates |
--        rotated tenant rates {instant (ms) the old ones end, or nil}
-- Replay: the new secret is there already and is not cut short.
local now = now_ms()
local tenant, rates, refusal = asked_of(ARGV[1], ARGV[2], now)
if refusal then return refusal end
if ARGV[1] ~= '' and full(now) then return {'no_memory', tenant, rates} end
local MOST = 5  -- secrets that sign side by side: receivers bound the length of a header
local key, ends = K.webhook_secrets(tenant), now + ARGV[4]
for _, old in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZADD', key, 'LT', ends, old) end
redis.call('ZADD', key, '+inf', ARGV[3])
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
redis.call('ZREMRANGEBYRANK', key, 0, -MOST - 1)
return {'rotated', tenant, rates, redis.call('ZCARD', key) > 1 and ends or false}
