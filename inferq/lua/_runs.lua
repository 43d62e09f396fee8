-- Shared steps: what becomes of jobs and runs.

-- Identical requests join a live run while it is named here.
local function unshare(run, r)
  if r.share == '1' and redis.call('GET', K.sharing(r.scope, r.fp)) == run then
    redis.call('DEL', K.sharing(r.scope, r.fp))
  end
end

-- Tokens that a run without a result has used: what it has read, and written as of the last heartbeat.
local function tokens_so_far(r)
  if tonumber(r.attempt) == 0 then return 0 end
  return math.min(tonumber(r.cost), tonumber(r.reads or 0) + tonumber(r.tokens or 0))
end

-- Counts what a tenant has used on one day, for as long as an invoice may be asked about.
local USAGE_DAYS = 40
local function count_usage(tenant, now, field, by)
  local day = K.usage(tenant, math.floor(now / 86400000))
  if by > 0 and redis.call('HINCRBY', day, field, by) == by then redis.call('EXPIRE', day, USAGE_DAYS * 86400) end
end

-- Corrects what an entry of a window of amounts counts, if it is still inside.
local function settle_window(key, policy, entry, amount)
  local amounts = K.amounts(key, policy)
  local counted = redis.call('HGET', amounts, entry)
  if counted then
    redis.call('HSET', amounts, entry, amount)
    redis.call('HINCRBY', amounts, 'total', amount - counted)
  end
end

-- One job less in flight for the key that submitted it.
local function land(j)
  if j.key and redis.call('HINCRBY', K.in_flight(j.tenant), j.key, -1) <= 0 then
    redis.call('HDEL', K.in_flight(j.tenant), j.key)
  end
end

-- Makes a job terminal: status, time, retention, and what it used. r: its run. used: tokens the run has used.
-- extra: a flat list of fields.
-- Does nothing to a terminal job.
local IDEMPOTENT_MS = 86400000  -- how long past its end a job's Idempotency-Key is remembered: 24 h
local function end_job(job, r, status, now, used, extra)
  local j = record(K.job(job))
  if not j or TERMINAL[j.status] then return false end
  redis.call('ZREM', K.deadlines, job)
  redis.call('HSET', K.job(job), 'status', status, 'completed_ms', now)
  if extra and #extra > 0 then redis.call('HSET', K.job(job), unpack(extra)) end
  if j.hook_url then tell(job, record(K.job(job)), r, status, now) end
  keep_job(job, now)
  if j.status == 'queued' then count_waiting(r.engine, j, -1) end
  settle_flow(r.engine, j, tonumber(r.cost), used)
  land(j)
  if j.key then settle_window(j.key, 'tokens', job, used) end
  if j.idempotency then redis.call('PEXPIRE', K.idempotency(j.tenant, j.idempotency), IDEMPOTENT_MS) end
  count_usage(j.tenant, now, status, 1)
  tally(r.engine, 'finished ' .. j.priority .. ' ' .. status)
  if used > 0 then count_usage(j.tenant, now, 'tokens', used) end
  if status == 'completed' then
    observe(r.engine, 'duration ' .. j.priority, now - j.created_ms)
    count_usage(j.tenant, now, 'prompt_tokens', r.prompt_tokens)
    count_usage(j.tenant, now, 'completion_tokens', r.completion_tokens)
  end
  announce(job, status, j.attempt)
  return true
end

-- Removes a run that nobody waits for or reads any more.
local function drop_run(run, r)
  disembark(run, r)
  unline(run, r)
  unshare(run, r)
  redis.call('ZREM', K.dead_letters, run)
  redis.call('DEL', K.run(run), K.request(run), K.output(run), K.members(run))
end

-- Ends every member of a run alike. The run's own record must be written before. used: tokens the run has used.
local function end_members(run, r, status, now, used, extra)
  for _, job in ipairs(redis.call('ZRANGE', K.members(run), 0, -1)) do
    end_job(job, r, status, now, used, extra)
  end
end

-- Writes a new run and puts it into its engine's queue. f: engine, model, tag, cost, reads, fp, scope, store, stream,
-- share (the last three 0 or 1), and perhaps request_id and trace of the call that opened it. request: JSON, opaque here.
local function open_run(run, f, request, now)
  redis.call('SADD', K.engines, f.engine)
  local r = {'v', VERSION, 'status', 'queued', 'engine', f.engine, 'model', f.model,
    'tag', f.tag, 'cost', f.cost, 'reads', f.reads, 'fp', f.fp, 'scope', f.scope, 'store', f.store,
    'stream', f.stream, 'share', f.share, 'arrived_ms', now, 'attempt', 0, 'fence', 0, 'strikes', 0, 'lost', 0}
  for _, name in ipairs({'request_id', 'trace'}) do
    if f[name] then r[#r + 1] = name; r[#r + 1] = f[name] end
  end
  redis.call('HSET', K.run(run), unpack(r))
  redis.call('SET', K.request(run), request)
  enline(run, {engine = f.engine, tag = f.tag, cost = f.cost, arrived_ms = now, strikes = 0, lost = 0})
  if f.share == 1 then redis.call('SET', K.sharing(f.scope, f.fp), run) end
  redis.call('PUBLISH', K.work(f.engine), '')
end

-- Writes a new job of a tenant and attaches it to a run, under a tag that its flow pays for unless it rides. f: engine,
-- tenant, key, model, priority, tag, charge, ttl_ms, cache, and perhaps what SAID names.
local SAID = {'key', 'metadata', 'idempotency', 'rides', 'hook_url', 'hook_events', 'hook_output', 'request_id', 'trace'}
local function open_job(job, run, f, now)
  local fields = {'v', VERSION, 'status', 'queued', 'run', run, 'tenant', f.tenant, 'model', f.model,
    'priority', f.priority, 'attempt', 0, 'created_ms', now, 'ttl_ms', f.ttl_ms, 'cache', f.cache, 'charge', f.charge}
  for _, name in ipairs(SAID) do
    if f[name] then fields[#fields + 1] = name; fields[#fields + 1] = f[name] end
  end
  redis.call('HSET', K.job(job), unpack(fields))
  redis.call('ZADD', K.members(run), f.tag, job)
  redis.call('ZADD', K.tenant_jobs(f.tenant), 0, job)
  if not f.rides then redis.call('ZADD', K.flows(f.engine), f.tag, flow_of(f.tenant, f.priority)) end
  count_waiting(f.engine, f, 1)
  if f.key then redis.call('HINCRBY', K.in_flight(f.tenant), f.key, 1) end
end

-- Shows a job as running: the first attempt is its start, after which only the deadline for its end counts.
local function start_job(job, j, r, attempt, now)
  redis.call('HSET', K.job(job), 'status', 'in_progress', 'attempt', attempt)
  local first = redis.call('HSETNX', K.job(job), 'started_ms', now) == 1
  redis.call('ZREM', K.deadlines, job)
  if j.end_by_ms then redis.call('ZADD', K.deadlines, j.end_by_ms, job) end
  if first then observe(r.engine, 'wait ' .. j.priority, now - j.created_ms) end
  if first and j.hook_url then tell(job, record(K.job(job)), r, 'started', now) end
  announce(job, 'in_progress', attempt)
end

-- Lets a job join a live run that was asked the same; false when it must have one of its own.
local MEMBERS = 256      -- of one run at most: each is a few writes of one script
local TOLD_MEMBERS = 64  -- when one that would join has a webhook: a delivery is a few more, and a payload
local function join(job, run, r, f, now)
  if r.abort or (r.status ~= 'queued' and r.status ~= 'in_progress') then return false end
  if f.stream == 1 and r.stream ~= '1' then return false end
  if redis.call('ZCARD', K.members(run)) >= (f.hook_url and TOLD_MEMBERS or MEMBERS) then return false end
  f.cache = 'coalesced'
  local first = redis.call('ZRANGE', K.members(run), 0, 0)[1]
  local ahead = r.status == 'queued' and f.tag < tonumber(r.tag)
  if not ahead then f.rides = 1 end
  open_job(job, run, f, now)
  if ahead then  -- whoever comes first pulls the run forward
    ride(r.engine, first, record(K.job(first)), tonumber(r.cost))
    redis.call('HSET', K.run(run), 'tag', f.tag)
    redis.call('ZADD', line(r), f.tag, run)
  elseif r.status == 'in_progress' then
    count_waiting(r.engine, f, -1)
  end
  return true
end

-- A cached completion as a table; nil when the text is none, as if it were not there.
local function completion_of(text)
  local readable, c = pcall(cjson.decode, text)
  if not readable or type(c) ~= 'table' then return nil end
  return c.text and c.finish_reason and c.prompt_tokens and c.completion_tokens and c.stored_ms and c or nil
end

-- Writes a job that ended as it came, from a cached completion c.
local function store_hit(job, run, f, c, now)
  redis.call('HSET', K.run(run), 'v', VERSION, 'status', 'completed', 'engine', f.engine, 'model', f.model, 'tag', 0,
    'cost', f.cost, 'fp', f.fp, 'scope', f.scope, 'share', 0, 'attempt', 0, 'fence', 0, 'strikes', 0, 'lost', 0,
    'finish_reason', c.finish_reason, 'prompt_tokens', c.prompt_tokens, 'completion_tokens', c.completion_tokens)
  redis.call('SET', K.output(run), c.text)
  redis.call('HSET', K.job(job), 'v', VERSION, 'status', 'completed', 'run', run, 'tenant', f.tenant,
    'model', f.model, 'priority', f.priority, 'attempt', 0, 'created_ms', now, 'completed_ms', now, 'ttl_ms', f.ttl_ms,
    'cache', 'hit', 'cached_ms', c.stored_ms)
  for _, name in ipairs({'metadata', 'idempotency', 'hook_url', 'hook_events', 'hook_output', 'request_id', 'trace'}) do
    if f[name] then redis.call('HSET', K.job(job), name, f[name]) end
  end
  redis.call('ZADD', K.members(run), 0, job)
  redis.call('ZADD', K.tenant_jobs(f.tenant), 0, job)
  if f.hook_url then tell(job, record(K.job(job)), record(K.run(run)), 'completed', now) end
  keep_job(job, now)
end

-- Puts a running run back into its queue under its old tag and lets its members wait again.
local function requeue(run, r)
  disembark(run, r)
  redis.call('HSET', K.run(run), 'status', 'queued', 'worker', '', 'slot', '', 'tokens', 0)
  enline(run, r)
  redis.call('PUBLISH', K.work(r.engine), '')
  for _, job in ipairs(redis.call('ZRANGE', K.members(run), 0, -1)) do
    local j = record(K.job(job))
    redis.call('HSET', K.job(job), 'status', 'queued')
    count_waiting(r.engine, j, 1)
    announce(job, 'queued', r.attempt)
  end
end

-- Ends the members of a running run that was told to stop (its last member left), and the run with them.
local function finish_abort(run, r, now)
  if r.abort_ms then observe(r.engine, 'freed', now - r.abort_ms) end
  end_members(run, r, r.abort, now, tokens_so_far(r), {'ran', '1'})
  drop_run(run, r)
end

-- Gives a run up for good: it waits among the dead letters until its jobs are forgotten, its request kept.
local function bury(run, r, now, code, message, retryable)
  tally(r.engine, 'given_up ' .. code)
  disembark(run, r)
  unshare(run, r)
  redis.call('HSET', K.run(run), 'status', 'failed', 'ended_ms', now)
  redis.call('ZADD', K.dead_letters, now, run)
  end_members(run, r, 'failed', now, 0, {'error_code', code, 'error_message', message, 'error_retryable', retryable})
end

-- Takes one job out of a run before the run has ended, as `status` (cancelled or expired).
-- Returns what the job says now: the status itself, or the present one while the engine must still free the run.
local function leave(job, j, status, now)
  local r = record(K.run(j.run))
  local running = r.status == 'in_progress'
  if running and redis.call('ZCARD', K.members(j.run)) == 1 then
    local shown = j.status
    redis.call('ZREM', K.deadlines, job)
    if not r.abort then redis.call('HSET', K.run(j.run), 'abort', status, 'abort_ms', now) end
    unshare(j.run, r)
    if status == 'cancelled' then
      shown = 'cancelling'
      redis.call('HSET', K.job(job), 'status', shown)
      announce(job, shown, j.attempt)
    end
    redis.call('PUBLISH', K.aborts(r.engine), j.run)
    return shown
  end
  redis.call('ZREM', K.members(j.run), job)
  local first = redis.call('ZRANGE', K.members(j.run), 0, 0, 'WITHSCORES')
  if not first[1] then
    drop_run(j.run, r)
  elseif not running and tonumber(first[2]) > tonumber(r.tag) then
    -- The run waits where the first of those that remain would.
    redis.call('HSET', K.run(j.run), 'tag', first[2])
    redis.call('ZADD', line(r), first[2], j.run)
  end
  end_job(job, r, status, now, 0, {'ran', running and '1' or '0'})
  if first[1] then pay(r.engine, first[1], record(K.job(first[1]))) end
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
  if j.hook_url then forget_deliveries(job) end
  redis.call('ZREM', K.tenant_jobs(j.tenant), job)
  redis.call('ZREM', K.members(j.run), job)
  redis.call('DEL', K.job(job))
  redis.call('SET', K.gone(job), j.tenant, 'PX', SECOND_LIFE)
  local r = record(K.run(j.run))
  if r and redis.call('ZCARD', K.members(j.run)) == 0 then drop_run(j.run, r) end
end
