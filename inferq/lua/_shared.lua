-- Steps that several transitions share, with an empty line between two. Those that a script uses, and the keys K
-- they name, are prepended to it after the clock.
-- Key names are built by K, so scripts declare none in KEYS; inferq needs one Redis per role, not a Cluster.

local VERSION = 1          -- of job and run records; scripts read this one and the one before
local SECOND_LIFE = 604800000  -- ms a tombstone answers 410 for a dropped job: 7 days

-- Lets the rest of a script write although Redis is full: Redis refuses a script its first write only, and never a
-- removal. For whatever finishes work or gives memory back; admission asks full() instead.
local function even_when_full()
  redis.call('DEL', K.nothing)
end

-- Whether Redis has used 85 % of its maxmemory (0: no limit). Redis is asked at most ten times a second.
local FULL = 0.85
local function full(now)
  local said = redis.call('HMGET', K.memory, 'asked_ms', 'full')
  if said[1] and math.abs(now - said[1]) < 100 then return said[2] == '1' end
  local info = redis.call('INFO', 'memory')
  local function bytes(name) return tonumber(info:match('\n' .. name .. ':(%d+)')) or 0 end
  local most = bytes('maxmemory')
  local is = most > 0 and bytes('used_memory') - bytes('mem_not_counted_for_evict') >= FULL * most
  redis.call('HSET', K.memory, 'asked_ms', now, 'full', is and '1' or '0')
  return is
end

-- HGETALL as a table; nil when the key does not exist.
local function record(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local out = {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end

-- Tells every long-poll what became of a job.
local function announce(job, status, attempt)
  redis.call('PUBLISH', K.transitions, job .. ' ' .. status .. ' ' .. attempt)
end

-- How suspect a run is: 0 not at all, 1 it was in an engine that died, 2 twice (or it lost many workers).
-- Lost leases are mostly bad luck and counted apart; only a run that keeps losing workers is taken aside for it.
local LOST_SUSPECT = 5
local function suspicion(r)
  if tonumber(r.lost) >= LOST_SUSPECT then return 2 end
  return math.min(2, tonumber(r.strikes))
end

-- Where a run waits: suspects apart from the queue, to run in small company of their like, or alone.
local function line(r)
  local level = suspicion(r)
  if level == 0 then return K.queue(r.engine) end
  return level == 1 and K.struck(r.engine) or K.solitary(r.engine)
end

-- Runs of an engine that wait, suspects included.
local function waiting(engine)
  return redis.call('ZCARD', K.queue(engine)) + redis.call('ZCARD', K.struck(engine))
    + redis.call('ZCARD', K.solitary(engine))
end

-- Ends a run's time in an engine: its lease, and its place among the runs of its worker.
local function disembark(run, r)
  redis.call('ZREM', K.leases, run)
  redis.call('SREM', K.aboard(r.worker or ''), run)
end

-- How many bells an engine's Celery list lacks: it is kept at min(eligible runs, 2 x ready slots).
local function bells(engine)
  local e = redis.call('HMGET', K.engine(engine), 'slots', 'paused_ms')
  local slots = tonumber(e[1] or 0)
  if slots == 0 or e[2] then return 0 end
  local want = math.min(waiting(engine), 2 * slots)
  return math.max(0, want - redis.call('LLEN', K.bells(engine)))
end

-- Sums the slots of workers that are ready and not stale, for bells().
local function count_slots(engine, now)
  redis.call('ZREMRANGEBYSCORE', K.engine_workers(engine), '-inf', now)
  local slots = 0
  for _, worker in ipairs(redis.call('ZRANGE', K.engine_workers(engine), 0, -1)) do
    local said = redis.call('HMGET', K.worker(worker), 'state', 'slots')
    if said[1] == 'ready' then slots = slots + tonumber(said[2]) end
  end
  redis.call('HSET', K.engine(engine), 'slots', slots)
end

-- Makes a job terminal: status, time, retention. extra is a flat list of fields. Does nothing to a terminal job.
local TERMINAL = {completed = true, failed = true, cancelled = true, expired = true}
local function end_job(job, status, now, extra)
  local key = K.job(job)
  local was = redis.call('HMGET', key, 'status', 'attempt', 'ttl_ms')
  if not was[1] or TERMINAL[was[1]] then return false end
  redis.call('ZREM', K.deadlines, job)
  local expires = now + tonumber(was[3])
  redis.call('HSET', key, 'status', status, 'completed_ms', now, 'expires_ms', expires)
  if extra and #extra > 0 then redis.call('HSET', key, unpack(extra)) end
  redis.call('ZADD', K.retention, expires, job)
  announce(job, status, was[2])
  return true
end

-- Removes a run that nobody waits for or reads any more.
local function drop_run(run, r)
  disembark(run, r)
  redis.call('ZREM', line(r), run)
  redis.call('ZREM', K.dead_letters, run)
  redis.call('DEL', K.run(run), K.request(run), K.output(run), K.members(run))
end

-- Ends every member of a run alike. The run's own record must be written before.
local function end_members(run, status, now, extra)
  local ended = 0
  for _, job in ipairs(redis.call('ZRANGE', K.members(run), 0, -1)) do
    if end_job(job, status, now, extra) then ended = ended + 1 end
  end
  return ended
end

-- Writes a new run and puts it at the end of its engine's queue; returns its tag. f: engine, model, cost, fp, scope,
-- store, stream (the last two 0 or 1). request: JSON, opaque here.
local function open_run(run, f, request)
  local tag = redis.call('HINCRBY', K.engine(f.engine), 'arrival', 1)
  redis.call('SADD', K.engines, f.engine)
  redis.call('HSET', K.run(run), 'v', VERSION, 'status', 'queued', 'engine', f.engine, 'model', f.model,
    'tag', tag, 'cost', f.cost, 'fp', f.fp, 'scope', f.scope, 'store', f.store, 'stream', f.stream,
    'attempt', 0, 'fence', 0, 'strikes', 0, 'lost', 0)
  redis.call('SET', K.request(run), request)
  redis.call('ZADD', K.queue(f.engine), tag, run)
  redis.call('PUBLISH', K.work(f.engine), '')
  return tag
end

-- Writes a new job of a tenant and attaches it to a run. f: model, priority, ttl_ms, cache, metadata (or nil).
local function open_job(job, tenant, run, tag, f, now)
  local fields = {'v', VERSION, 'status', 'queued', 'run', run, 'tenant', tenant, 'model', f.model,
    'priority', f.priority, 'attempt', 0, 'created_ms', now, 'ttl_ms', f.ttl_ms, 'cache', f.cache}
  if f.metadata then fields[#fields + 1] = 'metadata'; fields[#fields + 1] = f.metadata end
  redis.call('HSET', K.job(job), unpack(fields))
  redis.call('ZADD', K.members(run), tag, job)
  redis.call('ZADD', K.tenant_jobs(tenant), 0, job)
end

-- Puts a running run back into its queue under its old tag and lets its members wait again.
local function requeue(run, r)
  disembark(run, r)
  redis.call('HSET', K.run(run), 'status', 'queued', 'worker', '', 'slot', '', 'tokens', 0)
  redis.call('ZADD', line(r), r.tag, run)
  redis.call('PUBLISH', K.work(r.engine), '')
  for _, job in ipairs(redis.call('ZRANGE', K.members(run), 0, -1)) do
    redis.call('HSET', K.job(job), 'status', 'queued')
    announce(job, 'queued', r.attempt)
  end
end

-- Ends the members of a running run that was told to stop (its last member left), and the run with them.
local function finish_abort(run, r, now)
  end_members(run, r.abort, now, {'ran', '1'})
  drop_run(run, r)
end

-- Gives a run up for good: it waits among the dead letters until its jobs are forgotten, its request kept.
local function bury(run, r, now, code, message, retryable)
  disembark(run, r)
  redis.call('HSET', K.run(run), 'status', 'failed', 'ended_ms', now)
  redis.call('ZADD', K.dead_letters, now, run)
  end_members(run, 'failed', now, {'error_code', code, 'error_message', message, 'error_retryable', retryable})
end

-- Takes one job out of a run before the run has ended, as `status` (cancelled or expired).
-- Returns what the job says now: the status itself, or the present one while the engine must still free the run.
local function leave(job, j, status, now)
  local r = record(K.run(j.run))
  if r.status == 'in_progress' and redis.call('ZCARD', K.members(j.run)) == 1 then
    local shown = j.status
    redis.call('ZREM', K.deadlines, job)
    if not r.abort then redis.call('HSET', K.run(j.run), 'abort', status) end
    if status == 'cancelled' then
      shown = 'cancelling'
      redis.call('HSET', K.job(job), 'status', shown)
      announce(job, shown, j.attempt)
    end
    redis.call('PUBLISH', K.aborts(r.engine), j.run)
    return shown
  end
  redis.call('ZREM', K.members(j.run), job)
  end_job(job, status, now, {'ran', r.status == 'in_progress' and '1' or '0'})
  if redis.call('ZCARD', K.members(j.run)) == 0 then drop_run(j.run, r) end
  return status
end

-- Ends jobs whose deadline has passed, `most` of them; one that is alone in the engine is stopped first.
-- Returns how many were looked at.
local function expire_due(now, most)
  local due = redis.call('ZRANGEBYSCORE', K.deadlines, '-inf', now, 'LIMIT', 0, most)
  for _, job in ipairs(due) do
    redis.call('ZREM', K.deadlines, job)
    local j = record(K.job(job))
    if j and not TERMINAL[j.status] then leave(job, j, 'expired', now) end
  end
  return #due
end

-- Forgets a terminal job: record, index, and the run when it was the last to read it.
local function forget(job, j)
  redis.call('ZREM', K.retention, job)
  redis.call('ZREM', K.tenant_jobs(j.tenant), job)
  redis.call('ZREM', K.members(j.run), job)
  redis.call('DEL', K.job(job))
  redis.call('SET', K.gone(job), j.tenant, 'PX', SECOND_LIFE)
  local r = record(K.run(j.run))
  if r and redis.call('ZCARD', K.members(j.run)) == 0 then drop_run(j.run, r) end
end

-- One exact sliding window: entries are request ids, so a replayed script is not charged twice.
-- Returns allowed, remaining, ms until the next entry leaves the window.
local function window(key, limit, span, entry, now)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - span)
  local used = redis.call('ZCARD', key)
  local allowed = true
  if used >= limit then
    allowed = redis.call('ZSCORE', key, entry) ~= false  -- a replay
  elseif redis.call('ZADD', key, 'NX', now, entry) == 1 then
    redis.call('PEXPIRE', key, span)
    used = used + 1
  end
  local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  local reset = oldest and math.max(1, oldest + span - now) or span
  return allowed, math.max(0, limit - used), reset
end

-- Who is asking, and may they? a: key, digest, request, limit (default of the window). kind: requests or polls.
-- Returns the key's record and nil, or nil and the refusal to reply. rate is {limit, remaining, reset ms}.
local function enter(a, kind, now)
  local found = redis.call('HMGET', K.api_key(a.key), 'digest', 'tenant', kind, 'revoked_ms')
  if not found[1] or found[1] ~= a.digest or (found[4] and found[4] ~= '') then return nil, {'unauthorized'} end
  local limit = tonumber(found[3] or '') or a.limit
  local allowed, remaining, reset = window(K.window(a.key, kind), limit, 60000, a.request, now)
  local rate = {limit, remaining, reset}
  if not allowed then return nil, {'limited', found[2], rate} end
  return {tenant = found[2], rate = rate}, nil
end

-- The job of a tenant, or the reply that explains why there is none.
local function owned(job, tenant, rate)
  local j = record(K.job(job))
  if j and j.tenant == tenant then return j, nil end
  if not j and redis.call('GET', K.gone(job)) == tenant then return nil, {'gone', tenant, rate} end
  return nil, {'unknown', tenant, rate}
end
