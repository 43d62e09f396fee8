-- Gives the next run of an engine to a worker's slot, under a new fence and a lease.
-- ARGV 1: engine  2: worker id  3: slot token, new for every claim  4: lease in ms
-- Keys:  slot queue run request members job deadlines leases bells
-- Reply: none | run id fence attempt request model fp scope store bells left (runs that wait still)
-- Replay: the token remembers its run; the same token gets the same run while it is still running.
local engine, worker, token, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local now = now_ms()

local function granted(run, r)
  return {'run', run, tonumber(r.fence), tonumber(r.attempt), redis.call('GET', K.request(run)),
    r.model, r.fp, r.scope, tonumber(r.store), math.min(1, bells(engine)), redis.call('ZCARD', K.queue(engine))}
end

local held = redis.call('GET', K.slot(token))
if held then
  local r = record(K.run(held))
  if r and r.status == 'in_progress' and r.slot == token then return granted(held, r) end
  return {'none'}
end

-- Starts a run's members, expiring those whose time to start is over. Returns how many started.
local function start_members(run, attempt)
  local started = 0
  for _, job in ipairs(redis.call('ZRANGE', K.members(run), 0, -1)) do
    local j = record(K.job(job))
    local due = math.min(tonumber(j.start_by_ms or math.huge), tonumber(j.end_by_ms or math.huge))
    if j.started_ms then due = tonumber(j.end_by_ms or math.huge) end
    if due <= now then
      redis.call('ZREM', K.members(run), job)
      end_job(job, 'expired', now, {'ran', j.started_ms and '1' or '0'})
    else
      redis.call('HSET', K.job(job), 'status', 'in_progress', 'attempt', attempt)
      redis.call('HSETNX', K.job(job), 'started_ms', now)
      redis.call('ZREM', K.deadlines, job)
      if j.end_by_ms then redis.call('ZADD', K.deadlines, j.end_by_ms, job) end
      announce(job, 'in_progress', attempt)
      started = started + 1
    end
  end
  return started
end

for _ = 1, 100 do
  local popped = redis.call('ZPOPMIN', K.queue(engine))
  local run = popped[1]
  if not run then return {'none'} end
  local r = record(K.run(run))
  if r and r.status == 'queued' then
    local attempt = tonumber(r.attempt) + 1
    if start_members(run, attempt) > 0 then
      r.fence, r.attempt = tonumber(r.fence) + 1, attempt
      redis.call('HSET', K.run(run), 'status', 'in_progress', 'fence', r.fence, 'attempt', attempt,
        'worker', worker, 'slot', token, 'started_ms', now)
      redis.call('ZADD', K.leases, now + lease, run)
      redis.call('SET', K.slot(token), run, 'PX', 120000)
      return granted(run, r)
    end
    drop_run(run, engine)
  end
end
return {'none'}
