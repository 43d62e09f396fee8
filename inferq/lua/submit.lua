-- Admits one request: key, repeat of a submission, rate window, cache, live run to share, limits, room; then job and run
-- are written.
-- ARGV 1: JSON {key, digest or token, request, limit, polls, tokens, jobs (limits of the service), job, run, engine, model,
--               priority, cost, reads, fp, scope, read, store, share, only, cache, max_depth, max_tokens, ttl_ms, start_ms,
--               total_ms, stream, metadata, idempotency (digest of the key), body (digest of the whole body),
--               hook_url, hook_events (names with spaces between), hook_output, request_id (X-Request-ID of the call),
--               trace (its W3C trace context, as JSON), served (true: to be refused while no worker is ready)}
--      2: the request as the engine will get it (JSON, opaque here)
--      3: a completion that was found on the cache's own server, or ""
-- Keys:  job tenant_jobs idempotency deadlines retention run request output members sharing engines engine
--        arrivals flows paces waiting_jobs active queue struck solitary memory tenant usage in_flight amounts
--        tenants api_key window turns receivers receiver due sending delivery webhook_secrets disabled cache
--        transitions work outbox bells totals undelivered
-- Reply: unauthorized | limited tenant rates policy | mismatch tenant rates | repeat tenant rates job |
--        no_secret tenant rates | disabled tenant rates |
--        hit tenant rates completion now | absent tenant rates | unserved tenant rates | too_costly tenant rates limit |
--        full tenant rates runs-or-tokens ms | late tenant rates ms-to-wait | no_memory tenant rates |
--        accepted tenant rates {job fields} {run fields} output-or-nil rank-or-nil ms-to-wait-or-nil bells
-- Replay: the window entry is the request id and the job is there already, so a second run changes nothing.
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, stranger = authenticate(a)
if not who then return stranger end

if a.idempotency then
  local known = redis.call('HMGET', K.idempotency(who.tenant, a.idempotency), 'job', 'body')
  if known[1] and known[1] ~= a.job then
    local refusal = count_call(who, 'polls', a.polls, a.request, now)
    if refusal then return refusal end
    if known[2] ~= a.body then return {'mismatch', who.tenant, who.rates} end
    return {'repeat', who.tenant, who.rates, known[1]}
  end
end
local refusal = count_call(who, 'requests', a.limit, a.request, now)
if refusal then return refusal end

if a.hook_url then
  if redis.call('ZCOUNT', K.webhook_secrets(who.tenant), now, '+inf') == 0 then
    return {'no_secret', who.tenant, who.rates}
  end
  if redis.call('ZSCORE', K.disabled(who.tenant), a.hook_url) then return {'disabled', who.tenant, who.rates} end
end

local again = redis.call('EXISTS', K.job(a.job)) == 1
local scope = a.scope == 'tenant' and who.tenant or 'shared'
local completion = ARGV[3] ~= '' and ARGV[3] or a.read and redis.call('GET', K.cache(scope, a.fp))
if completion and not a.idempotency and not a.hook_url and not again then
  count_usage(who.tenant, now, 'hits', 1)
  return {'hit', who.tenant, who.rates, completion, now}
end

-- LATER

local function accepted(ring)
  local job, run, output, rank, wait = shown(record(K.job(a.job)))
  return {'accepted', who.tenant, who.rates, job, run, output, rank, wait, ring}
end

if again then return accepted(math.min(1, bells(a.engine))) end

local f = {engine = a.engine, tenant = who.tenant, key = who.key, model = a.model, priority = priority_of(who, a.priority),
  cost = a.cost, reads = a.reads, fp = a.fp, scope = scope, ttl_ms = a.ttl_ms,
  store = a.store and 1 or 0, stream = a.stream and 1 or 0, share = a.share and 1 or 0, cache = a.cache,
  metadata = a.metadata, idempotency = a.idempotency, request_id = a.request_id, trace = a.trace,
  hook_url = a.hook_url, hook_events = a.hook_events, hook_output = a.hook_output and 1 or nil}

-- What is written for every accepted job: its deadlines, and the Idempotency-Key it answers to.
local function remember()
  if a.start_ms then redis.call('HSET', K.job(a.job), 'start_by_ms', now + a.start_ms) end
  if a.total_ms then redis.call('HSET', K.job(a.job), 'end_by_ms', now + a.total_ms) end
  if a.start_ms or a.total_ms then
    redis.call('ZADD', K.deadlines, now + math.min(a.start_ms or a.total_ms, a.total_ms or a.start_ms), a.job)
  end
  if a.idempotency then
    redis.call('HSET', K.idempotency(f.tenant, a.idempotency), 'job', a.job, 'body', a.body)
  end
  count_usage(f.tenant, now, 'submitted', 1)
end

local c = completion and completion_of(completion)
if not c then
  if a.only then return {'absent', who.tenant, who.rates} end
  if a.served and tonumber(redis.call('HGET', K.engine(a.engine), 'slots') or 0) == 0 then
    return {'unserved', who.tenant, who.rates}
  end
  refusal = check_tokens(who, a.tokens, a.cost, now) or check_jobs(who, a.jobs)
  if refusal then return refusal end
end
if full(now) then return {'no_memory', who.tenant, who.rates} end

local wanted = math.min(a.start_ms or a.total_ms or math.huge, a.total_ms or a.start_ms or math.huge)

-- A job that would start too late is better refused than accepted. `ahead`: runs before it.
local function late(tag, ahead, cost, weight)
  local order, fair = expected_wait(f.engine, tag, ahead, cost, weight)
  if wanted == math.huge or ahead == 0 or not order or CAUTION * math.max(order, fair) <= wanted then return nil end
  return {'late', who.tenant, who.rates, math.max(order, fair)}
end

-- Writes a job with a run of its own, if there is room for it.
local function queue_up()
  local depth, tokens = waiting(f.engine), tonumber(redis.call('HGET', K.engine(f.engine), 'tokens') or 0)
  local ahead = depth > 0 and redis.call('ZCOUNT', K.queue(f.engine), '-inf', f.tag) or 0
  local weight = redis.call('HEXISTS', K.active(f.engine), f.tenant) == 1 and 0 or weight_of(f.tenant)
  local full_of = depth >= a.max_depth and 'runs' or depth > 0 and tokens + f.cost > a.max_tokens and 'tokens'
  if full_of then
    return {'full', who.tenant, who.rates, full_of, expected_wait(f.engine, f.tag, ahead, f.cost, weight) or -1}
  end
  local too_late = late(f.tag, ahead, f.cost, weight)
  if too_late then return too_late end
  open_run(a.run, f, ARGV[2], now)
  open_job(a.job, a.run, f, now)
  remember()
  count_tokens(who, a.job, f.cost, now)
  return accepted(math.min(1, bells(f.engine)))
end

local live, r
if not c then
  f.tag, f.charge = quote(f.engine, f.tenant, f.priority, f.cost)
  live = a.share and redis.call('GET', K.sharing(f.scope, f.fp))
  r = live and record(K.run(live))
  if not r then return queue_up() end
end

-- LATER

if c then
  -- Its repeats must find it, or its receiver be told: a job that has ended already.
  count_usage(f.tenant, now, 'hits', 1)
  f.cache, f.tag, f.charge = 'hit', 0, 0
  store_hit(a.job, a.run, f, c, now)
  remember()
  redis.call('ZREM', K.deadlines, a.job)
  if a.idempotency then redis.call('PEXPIRE', K.idempotency(f.tenant, a.idempotency), IDEMPOTENT_MS) end
  return accepted(0)
end

if r.status == 'queued' then
  local tag = math.min(f.tag, tonumber(r.tag))
  refusal = late(tag, redis.call('ZCOUNT', line(r), '-inf', '(' .. string.format('%.0f', tag)), 0, 0)
  if refusal then return refusal end
end
if join(a.job, live, r, f, now) then
  remember()
  if r.status == 'in_progress' then start_job(a.job, record(K.job(a.job)), r, r.attempt, now) end
  count_tokens(who, a.job, f.cost, now)
  count_usage(f.tenant, now, 'coalesced', 1)
  return accepted(math.min(1, bells(f.engine)))
end
return queue_up()
