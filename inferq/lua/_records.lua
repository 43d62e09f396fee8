-- Steps that several transitions share, with an empty line between two. Those that a script uses, and the keys K
-- they name, are prepended to it after the clock. Here: records, memory, lines, bells.
-- Key names are built by K, so scripts declare none in KEYS; inferq needs one Redis per role, not a Cluster.

local VERSION = 2          -- of job and run records; scripts read this one and the one before
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

local TERMINAL = {completed = true, failed = true, cancelled = true, expired = true}

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

-- Counts a run that begins (by 1) or ends (by -1) its time in an engine.
local function count_running(r, by)
  if r.v == '1' then return end  -- the version before counted none
  redis.call('HINCRBY', K.engine(r.engine), 'running', by)
end

-- Ends a run's time in an engine: its lease, its place among the runs of its worker, and the stream of what it wrote: the
-- whole text is in the output by now, or void.
local function disembark(run, r)
  if redis.call('ZREM', K.leases, run) == 1 then count_running(r, -1) end
  if r.stream == '1' then redis.call('DEL', K.events(run)) end
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

