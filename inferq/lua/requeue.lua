-- Asks a dead letter's question once more, as a new run with new jobs: a job that has failed stays failed.
-- ARGV 1: dead run  2: id of the new run  3..: ids for new jobs, at least as many as the run has members
-- Keys:  job tenant_jobs run request members dead_letters sharing engines engine arrivals flows paces
--        waiting_jobs active queue struck solitary tenant in_flight work
-- Reply: unknown | few members (more ids are needed) | requeued {tenant, new job, tenant, new job, ...}
-- Replay: the new run is there already; its jobs are told again.
local dead, run = ARGV[1], ARGV[2]
local now = now_ms()
local asked = {}
if redis.call('EXISTS', K.run(run)) == 0 then
  local r = record(K.run(dead))
  if not r or not redis.call('ZSCORE', K.dead_letters, dead) then return {'unknown'} end
  local members = redis.call('ZRANGE', K.members(dead), 0, -1)
  if #members > #ARGV - 2 then return {'few', #members} end
  redis.call('ZREM', K.dead_letters, dead)
  r.share, r.tag, r.reads = 0, math.huge, r.reads or 0
  local new = {}
  for i, old in ipairs(members) do
    local j = record(K.job(old))
    j.engine, j.cache, j.idempotency = r.engine, 'bypass', nil
    j.tag, j.charge = quote(r.engine, j.tenant, j.priority, tonumber(r.cost))
    j.rides = 1
    r.tag = math.min(r.tag, j.tag)
    new[i] = j
  end
  for _, j in ipairs(new) do
    if j.tag == r.tag then j.rides = nil; break end  -- the first in line pays
  end
  open_run(run, r, redis.call('GET', K.request(dead)), now)
  for i, j in ipairs(new) do open_job(ARGV[2 + i], run, j, now) end
end
for _, job in ipairs(redis.call('ZRANGE', K.members(run), 0, -1)) do
  asked[#asked + 1] = redis.call('HGET', K.job(job), 'tenant')
  asked[#asked + 1] = job
end
return {'requeued', asked}
