-- Shared steps: whose turn it is.

-- Fair queueing (self-clocked: Golestani, INFOCOM 1994). A run waits under a tag: the virtual time at which its flow
-- (tenant and priority) will have had its share of service. V, the virtual time, is the highest tag served so far.
-- Tags are integers; a token of a tenant of weight 1 is worth TAG_UNIT. Tenants' weights are in thousandths.
local TAG_UNIT = 1000
local WEIGHT_UNIT = 1000

-- How a tenant's weight is split over those of its priorities that wait.
local PRIORITIES = {'high', 'normal', 'low'}
local PART = {high = 4, normal = 2, low = 1}

local function virtual_time(engine)
  return tonumber(redis.call('HGET', K.engine(engine), 'v') or 0)
end

local function flow_of(tenant, priority)
  return tenant .. '/' .. priority
end

-- Jobs of a tenant that wait, by priority in the order of PRIORITIES, and their sum.
local function waiting_of(engine, tenant)
  local counts = redis.call('HMGET', K.waiting_jobs(engine), flow_of(tenant, 'high'), flow_of(tenant, 'normal'),
    flow_of(tenant, 'low'))
  local sum = 0
  for i = 1, 3 do
    counts[i] = tonumber(counts[i] or 0)
    sum = sum + counts[i]
  end
  return counts, sum
end

local function weight_of(tenant)
  return tonumber(redis.call('HGET', K.tenant(tenant), 'weight') or WEIGHT_UNIT)
end

-- How far a job of `cost` tokens takes its flow ahead, given which priorities of its tenant wait now; and their parts.
local function charge_for(engine, tenant, priority, cost)
  local counts = waiting_of(engine, tenant)
  local parts = 0
  for i, name in ipairs(PRIORITIES) do
    if name == priority or counts[i] > 0 then parts = parts + PART[name] end
  end
  return math.ceil(cost * TAG_UNIT * WEIGHT_UNIT * parts / (weight_of(tenant) * PART[priority])), parts
end

-- What a job would be given by its flow if it came now: a tag, and the charge in it.
local function quote(engine, tenant, priority, cost)
  local last = tonumber(redis.call('ZSCORE', K.flows(engine), flow_of(tenant, priority)) or 0)
  local charge = charge_for(engine, tenant, priority, cost)
  return math.max(virtual_time(engine), last) + charge, charge
end

-- Counts a job that begins to wait (by 1) or waits no more (by -1), and its tenant among those that have jobs waiting.
local function count_waiting(engine, j, by)
  if not j.charge then return end  -- written by the version before, which counted nothing
  local _, before = waiting_of(engine, j.tenant)
  local flow = flow_of(j.tenant, j.priority)
  if redis.call('HINCRBY', K.waiting_jobs(engine), flow, by) <= 0 then
    redis.call('HDEL', K.waiting_jobs(engine), flow)
    redis.call('HDEL', K.paces(engine), flow, flow .. ' back', flow .. ' parts')
  end
  redis.call('HINCRBY', K.engine(engine), 'waiting_' .. j.priority, by)
  if before == 0 then
    local weight = weight_of(j.tenant)
    redis.call('HSET', K.active(engine), j.tenant, weight)
    redis.call('HINCRBY', K.engine(engine), 'weight', weight)
  elseif before + by == 0 then
    redis.call('HINCRBY', K.engine(engine), 'weight', -redis.call('HGET', K.active(engine), j.tenant))
    redis.call('HDEL', K.active(engine), j.tenant)
    -- When nobody waits any more, nobody is ahead of anybody.
    if redis.call('HLEN', K.active(engine)) == 0 then redis.call('DEL', K.flows(engine)) end
  end
end

-- Settles what a job reserved of its flow against the tokens that its run used: the rest is given back, what was used
-- beyond is taken, never below V. Who rides has reserved nothing. Without anybody waiting there is nothing to be fair about.
local function settle_flow(engine, j, cost, used)
  local charge = tonumber(j.charge or 0)
  if charge == 0 or j.rides or redis.call('HLEN', K.active(engine)) == 0 then return end
  local v, flow = virtual_time(engine), flow_of(j.tenant, j.priority)
  local last = tonumber(redis.call('ZSCORE', K.flows(engine), flow) or v)
  local settled = math.max(v, last - math.floor(charge * (1 - used / cost)))
  if settled > v then
    redis.call('ZADD', K.flows(engine), settled, flow)
  else
    redis.call('ZREM', K.flows(engine), flow)
  end
end

-- Of the jobs that share a run the first in line pays for it, under whose tag it waits; the others ride along.
-- Without anybody waiting nobody owes anything, see above.
local function ride(engine, job, j, cost)
  settle_flow(engine, j, cost, 0)
  redis.call('HSET', K.job(job), 'rides', 1)
end

local function pay(engine, job, j)
  if not j.rides then return end
  redis.call('HDEL', K.job(job), 'rides')
  if redis.call('HLEN', K.active(engine)) == 0 then return end
  local flow = flow_of(j.tenant, j.priority)
  local last = tonumber(redis.call('ZSCORE', K.flows(engine), flow) or 0)
  redis.call('ZADD', K.flows(engine), math.max(virtual_time(engine), last) + j.charge, flow)
end

-- Lets a run wait in its line, or wait no more. What waits is summed in tokens beside the lines.
local function enline(run, r)
  redis.call('ZADD', line(r), r.tag, run)
  if not r.arrived_ms then return end  -- written by the version before, which summed nothing
  redis.call('ZADD', K.arrivals(r.engine), r.arrived_ms, run)
  redis.call('HINCRBY', K.engine(r.engine), 'tokens', r.cost)
end

local function unline(run, r)
  if redis.call('ZREM', line(r), run) == 0 or not r.arrived_ms then return end
  redis.call('ZREM', K.arrivals(r.engine), run)
  redis.call('HINCRBY', K.engine(r.engine), 'tokens', -r.cost)
end

-- Keeps a flow to its pace. When a run's turn comes, its tenant may have begun to use further priorities since it was
-- given its tag: then it, and each of its flow after it, waits on under the tag it would have been given. So a tenant has
-- its weight and no more, in whatever order it sends its priorities. Returns whether the run was put back.
-- Shared runs and those that ran before keep their tags. A flow's pace is {tag last served, tag last put back, parts}.
local function put_back(run, r)
  local members = redis.call('ZRANGE', K.members(run), 0, 1)
  local j = #members == 1 and tonumber(r.attempt) == 0 and record(K.job(members[1]))
  if not j or not j.charge then return false end
  local flow, tag, reserved = flow_of(j.tenant, j.priority), tonumber(r.tag), tonumber(j.charge)
  local charge, parts = charge_for(r.engine, j.tenant, j.priority, tonumber(r.cost))
  local pace = redis.call('HMGET', K.paces(r.engine), flow, flow .. ' back', flow .. ' parts')
  local back = pace[3] == tostring(parts) and tonumber(pace[2])
  if r.parts ~= tostring(parts) and (back or charge > reserved) then
    local due = math.max(tag, (back or tonumber(pace[1] or 0)) + math.max(charge, reserved))
    redis.call('HSET', K.paces(r.engine), flow .. ' back', due, flow .. ' parts', parts)
    redis.call('HSET', K.run(run), 'tag', due, 'parts', parts)
    if due > tag then
      redis.call('HSET', K.job(members[1]), 'charge', math.max(charge, reserved))
      redis.call('ZADD', K.members(run), due, members[1])
      redis.call('ZADD', K.queue(r.engine), due, run)
      redis.call('ZADD', K.flows(r.engine), 'GT', due, flow)
      return true
    end
  end
  redis.call('HSET', K.paces(r.engine), flow, tag)
  return false
end

-- The virtual time moves on as a run is served. A flow whose last tag it has passed needs no remembering.
local function serve(engine, tag)
  local v = math.max(virtual_time(engine), tag)
  redis.call('HSET', K.engine(engine), 'v', v)
  redis.call('ZREMRANGEBYSCORE', K.flows(engine), '-inf', v)
end

