-- Gives the next run of an engine to a worker's slot, under a new fence and a lease.
-- ARGV 1: engine  2: worker id  3: slot token, new for every claim  4: lease in ms
-- Keys:  job idempotency deadlines retention run request output events members dead_letters sharing leases slot engine
--        arrivals flows paces waiting_jobs active queue struck solitary turn aboard tenant usage in_flight amounts turns
--        receivers receiver due sending delivery transitions outbox bells totals undelivered
-- Reply: none | run id fence attempt request model fp scope store bells left (runs this worker may still claim)
--        stream (0 or 1) ms-since-it-came request-id-or-nil trace-or-nil
-- Replay: the token remembers its run; the same token gets the same run while it is still running.
local engine, worker, token, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local now = now_ms()
even_when_full()

local COMPANY = 4        -- suspects of the first degree that run together
local NORMAL_MS = 10000  -- how long everybody else is served between two turns of suspects

-- Whom this worker serves now. Suspects run when nobody else is aboard, and nobody joins them: when the engine dies
-- under them, it is known who may have done it, and nobody else is struck. In between the others have their turn.
-- Returns the line to take from and how many more may be taken from it.
local function turn()
  local t = redis.call('HMGET', K.turn(worker), 'mode', 'more', 'until_ms')
  local mode, more, till = t[1] or 'normal', tonumber(t[2] or 0), tonumber(t[3] or 0)
  local normal, struck, solitary = redis.call('ZCARD', K.queue(engine)), redis.call('ZCARD', K.struck(engine)),
    redis.call('ZCARD', K.solitary(engine))
  if normal + struck + solitary == 0 then return nil, 0 end
  local suspects_turn = struck + solitary > 0 and (normal == 0 or now >= till)
  if redis.call('SCARD', K.aboard(worker)) == 0 then
    local ended = mode ~= 'normal'
    if suspects_turn and (normal == 0 or not ended) then
      mode, more = struck > 0 and 'company' or 'alone', struck > 0 and COMPANY or 1
    else
      mode, more = 'normal', 0
      if ended then till = now + NORMAL_MS end
    end
    redis.call('HSET', K.turn(worker), 'mode', mode, 'more', more, 'until_ms', till)
    redis.call('PEXPIRE', K.turn(worker), 3600000)
  elseif mode == 'normal' and suspects_turn then
    return nil, 0  -- those aboard finish first
  end
  if mode == 'normal' then return K.queue(engine), normal end
  if mode == 'company' then return K.struck(engine), math.min(more, struck) end
  return K.solitary(engine), math.min(more, solitary)
end

local function granted(run, r, left)
  return {'run', run, tonumber(r.fence), tonumber(r.attempt), redis.call('GET', K.request(run)),
    r.model, r.fp, r.scope, tonumber(r.store), math.min(1, bells(engine)), left, tonumber(r.stream or 0),
    now - (r.arrived_ms or now), r.request_id or false, r.trace or false}
end

local held = redis.call('GET', K.slot(token))
if held then
  local r = record(K.run(held))
  if r and r.status == 'in_progress' and r.slot == token then
    local _, left = turn()  -- somebody is aboard: nothing is changed by asking again
    return granted(held, r, left)
  end
  return {'none'}
end

if redis.call('HEXISTS', K.engine(engine), 'paused_ms') == 1 then return {'none'} end

-- Starts a run's members, expiring those whose time to start is over. Returns how many started.
local function start_members(run, r, attempt)
  local started = 0
  for _, job in ipairs(redis.call('ZRANGE', K.members(run), 0, -1)) do
    local j = record(K.job(job))
    local due = math.min(tonumber(j.start_by_ms or math.huge), tonumber(j.end_by_ms or math.huge))
    if j.started_ms then due = tonumber(j.end_by_ms or math.huge) end
    if due <= now then
      redis.call('ZREM', K.members(run), job)
      end_job(job, r, 'expired', now, 0, {'ran', j.started_ms and '1' or '0'})
    else
      count_waiting(engine, j, -1)
      start_job(job, j, r, attempt, now)
      if started == 0 then pay(engine, job, j) end  -- whoever paid may have expired just now
      started = started + 1
    end
  end
  return started
end

local PUT_BACK = 400     -- runs that one claim may put back before it serves whoever is next
for looked = 1, PUT_BACK + 100 do
  local from, left = turn()
  local run = left > 0 and redis.call('ZRANGE', from, 0, 0)[1]
  if not run then return {'none'} end
  local r = record(K.run(run))
  if not r or r.status ~= 'queued' then
    redis.call('ZREM', from, run)
  elseif from ~= K.queue(engine) or looked > PUT_BACK or not put_back(run, r) then
    unline(run, r)
    local attempt = tonumber(r.attempt) + 1
    if start_members(run, r, attempt) > 0 then
      serve(engine, tonumber(r.tag))
      r.fence, r.attempt = tonumber(r.fence) + 1, attempt
      redis.call('HSET', K.run(run), 'status', 'in_progress', 'fence', r.fence, 'attempt', attempt,
        'worker', worker, 'slot', token, 'started_ms', now)
      redis.call('ZADD', K.leases, now + lease, run)
      count_running(r, 1)
      redis.call('SADD', K.aboard(worker), run)
      if from ~= K.queue(engine) then redis.call('HINCRBY', K.turn(worker), 'more', -1) end
      redis.call('SET', K.slot(token), run, 'PX', 120000)
      return granted(run, r, left - 1)
    end
    drop_run(run, r)
  end
end
return {'none'}
