-- Shared steps: how long it will take.

-- How long, in ms, a run waits under `tag` with `ahead` runs before it: as the order stands, and by its flow's share
-- should all who wait now go on asking. `cost` and `weight` are what it would add to the sums, 0 when it is in them.
-- Returns nil when nobody can say. The rate is what the slots have done lately: tokens reserved by the runs they
-- finished, over the time these took.
local function expected_wait(engine, tag, ahead, cost, weight)
  local e = redis.call('HMGET', K.engine(engine), 'slots', 'served_tokens', 'served_ms', 'tokens', 'weight', 'v',
    'paused_ms', 'running')
  local slots, served_ms, free = tonumber(e[1] or 0), tonumber(e[3] or 0), tonumber(e[1] or 0) - tonumber(e[8] or 0)
  if slots == 0 or served_ms == 0 or e[7] then return nil, nil end
  if ahead < free then return 0, 0 end
  local rate = slots * tonumber(e[2]) / served_ms
  local tokens, runs = tonumber(e[4] or 0) + cost, waiting(engine) + (cost > 0 and 1 or 0)
  local order = (ahead + 1 - math.max(0, free)) * tokens / math.max(1, runs) / rate
  local fair = (tag - tonumber(e[6] or 0)) * (tonumber(e[5] or 0) + weight) / (TAG_UNIT * WEIGHT_UNIT) / rate
  return math.ceil(order), math.max(0, math.ceil(fair))
end

-- By how much a predicted wait may turn out longer: whom it would bring too close to a deadline is refused.
local CAUTION = 1.25

-- Takes a finished run into the measured rate: about the last fifty count, or two full batches.
local function measure(engine, tokens, ms)
  local e = redis.call('HMGET', K.engine(engine), 'slots', 'served_tokens', 'served_ms')
  local keep = 1 - 1 / math.max(50, 2 * tonumber(e[1] or 0))
  redis.call('HSET', K.engine(engine), 'served_tokens', tonumber(e[2] or 0) * keep + tokens,
    'served_ms', tonumber(e[3] or 0) * keep + math.max(1, ms))
end

-- A table as a reply: name, value, name, value, ...
local function flat(t)
  local out = {}
  for name, value in pairs(t) do
    out[#out + 1] = name
    out[#out + 1] = value
  end
  return out
end

-- Where a waiting run stands: its rank, and ms until it should start. A suspect's turn depends on what becomes of others.
local function place(run, r)
  if suspicion(r) > 0 then return false, false end
  local rank = redis.call('ZRANK', line(r), run)
  if not rank then return false, false end
  local order, fair = expected_wait(r.engine, tonumber(r.tag), rank, 0, 0)
  return rank, order and math.min(order, fair) or false
end

-- A job's record as its owner sees it: {job fields} {run fields} output-or-nil rank-or-nil ms-to-wait-or-nil.
local function shown(j)
  local r = record(K.run(j.run)) or {}
  local output, rank, wait = false, false, false
  if j.status == 'completed' then output = redis.call('GET', K.output(j.run)) end
  if j.status == 'queued' then rank, wait = place(j.run, r) end
  return flat(j), flat(r), output, rank, wait
end
