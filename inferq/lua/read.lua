-- One job of the caller with what its run knows.
-- ARGV 1: JSON {key, digest, request, limit, job}
-- Keys:  api_key window job gone run output queue struck solitary
-- Reply: unauthorized | limited tenant rate | unknown tenant rate | gone tenant rate |
--        job tenant rate {job fields} {run fields} output-or-nil rank-or-nil now
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, refusal = enter(a, 'polls', now)
if refusal then return refusal end
local j, absent = owned(a.job, who.tenant, who.rate)
if absent then return absent end
if j.expires_ms and tonumber(j.expires_ms) <= now then return {'gone', who.tenant, who.rate} end
local run = redis.call('HGETALL', K.run(j.run))
local output, rank = false, false
if j.status == 'completed' then output = redis.call('GET', K.output(j.run)) end
if j.status == 'queued' then
  rank = redis.call('ZRANK', line(record(K.run(j.run))), j.run)
end
return {'job', who.tenant, who.rate, redis.call('HGETALL', K.job(a.job)), run, output, rank, now}
