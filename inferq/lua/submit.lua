-- Admits one request: key, rate window, cache, room, then job and run are written.
-- ARGV 1: JSON {key, digest, request, limit, job, run, engine, model, priority, cost, fp, scope, read, store, only,
--               max_depth, ttl_ms, start_ms, total_ms, stream, metadata}
--      2: the request as the engine will get it (JSON, opaque here)
-- Keys:  memory api_key window cache job run request members queue engine engines tenant_jobs deadlines bells work
-- Reply: unauthorized | limited tenant rate | hit tenant rate completion now | absent tenant rate |
--        full tenant rate depth | no_memory tenant rate | queued tenant rate position bells created
-- Replay: the window entry is the request id and the job is there already, so a second run changes nothing.
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, refusal = enter(a, 'requests', now)
if refusal then return refusal end

local created = redis.call('HGET', K.job(a.job), 'created_ms')
if created then
  local rank = redis.call('ZRANK', K.queue(a.engine), a.run)
  return {'queued', who.tenant, who.rate, rank and rank + 1 or 0, math.min(1, bells(a.engine)), tonumber(created)}
end

local scope = a.scope == 'tenant' and who.tenant or 'shared'
if a.read then
  local completion = redis.call('GET', K.cache(scope, a.fp))
  if completion then return {'hit', who.tenant, who.rate, completion, now} end
end
if a.only then return {'absent', who.tenant, who.rate} end

if full(now) then return {'no_memory', who.tenant, who.rate} end
local depth = redis.call('ZCARD', K.queue(a.engine))
if depth >= a.max_depth then return {'full', who.tenant, who.rate, depth} end

local tag = open_run(a.run, {engine = a.engine, model = a.model, cost = a.cost, fp = a.fp, scope = scope,
  store = a.store and 1 or 0, stream = a.stream and 1 or 0}, ARGV[2])
open_job(a.job, who.tenant, a.run, tag, a, now)
if a.start_ms then redis.call('HSET', K.job(a.job), 'start_by_ms', now + a.start_ms) end
if a.total_ms then redis.call('HSET', K.job(a.job), 'end_by_ms', now + a.total_ms) end
if a.start_ms or a.total_ms then
  redis.call('ZADD', K.deadlines, now + math.min(a.start_ms or a.total_ms, a.total_ms or a.start_ms), a.job)
end
return {'queued', who.tenant, who.rate, redis.call('ZRANK', K.queue(a.engine), a.run) + 1,
  math.min(1, bells(a.engine)), now}
