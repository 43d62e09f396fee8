-- Shared steps: who may do how much.

-- Whoever presents a key, or shows a token that the API has verified ({tenant, limits by policy}). own: the limits of
-- that key or token. Returns who, or nil and the refusal to reply, with the reason if key or token is good.
local function authenticate(a)
  local token = a.token
  if token then
    if redis.call('SISMEMBER', K.tenants, token.tenant) == 0 then
      return nil, {'unauthorized', '', {}, 'tenant_unknown'}
    end
    return {tenant = token.tenant, key = a.key, own = token, token = true, rates = {}}
  end
  local k = redis.call('HMGET', K.api_key(a.key), 'digest', 'tenant', 'revoked_ms', 'requests', 'polls', 'tokens',
    'jobs', 'max_priority')
  if not k[1] or k[1] ~= a.digest or (k[3] and k[3] ~= '') then return nil, {'unauthorized'} end
  local own = {requests = k[4], polls = k[5], tokens = k[6], jobs = k[7], max_priority = k[8]}
  return {tenant = k[2], key = a.key, own = own, rates = {}}
end

-- The limit of a key under a policy, and whether its tenant is suspended: its own, at most its tenant's; without either
-- the service's. A token's is at most the service's too: who makes tokens need not be who runs the service. 0: no limit.
local function limit_of(who, policy, default)
  local t = redis.call('HMGET', K.tenant(who.tenant), policy, 'suspended_ms')
  local own, ceiling = tonumber(who.own[policy] or nil), tonumber(t[1] or nil)
  if who.token and default > 0 then ceiling = ceiling or default end
  if own and ceiling then return math.min(own, ceiling), t[2] end
  return own or ceiling or default, t[2]
end

-- ms until the oldest entry leaves a sliding window, all of which span a minute.
local SPAN = 60000
local function first_leaves(key, now)
  local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return oldest and math.max(1, oldest + SPAN - now) or SPAN
end

-- Counts a call in an exact sliding window: entries are request ids, so a replayed script is not charged twice.
-- Returns the refusal to reply, or nil. A rate is {policy, limit, remaining, ms until something comes back}.
local function count_call(who, policy, default, entry, now)
  local limit, suspended = limit_of(who, policy, default)
  if suspended then return {'unauthorized', '', {}, 'tenant_suspended'} end
  local key = K.window(who.key, policy)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - SPAN)
  local used = redis.call('ZCARD', key)
  local allowed = true
  if used >= limit then
    allowed = redis.call('ZSCORE', key, entry) ~= false  -- a replay
  elseif redis.call('ZADD', key, 'NX', now, entry) == 1 then
    redis.call('PEXPIRE', key, SPAN)
    used = used + 1
  end
  who.rates[#who.rates + 1] = {policy, limit, math.max(0, limit - used), first_leaves(key, now)}
  if not allowed then return {'limited', who.tenant, who.rates, policy} end
  return nil
end

-- Who is asking, and may they? a: key, digest or token, request, limit (the service's). policy: requests or polls.
-- Returns who and nil, or nil and the refusal to reply.
local function enter(a, policy, now)
  local who, stranger = authenticate(a)
  if not who then return nil, stranger end
  local refusal = count_call(who, policy, a.limit, a.request, now)
  if refusal then return nil, refusal end
  return who, nil
end

-- ms until `needed` tokens have left a window of amounts.
local function tokens_leave(key, amounts, needed, now)
  for start = 0, 950, 50 do  -- of the oldest thousand; beyond, a minute is near enough
    local entries = redis.call('ZRANGE', key, start, start + 49, 'WITHSCORES')
    for i = 1, #entries, 2 do
      needed = needed - (redis.call('HGET', amounts, entries[i]) or 0)
      if needed <= 0 then return math.max(1, entries[i + 1] + SPAN - now) end
    end
    if #entries == 0 then break end
  end
  return SPAN
end

-- May the key spend `cost` tokens in this minute? Counts nothing yet. Returns the refusal, or nil.
local function check_tokens(who, default, cost, now)
  local limit = limit_of(who, 'tokens', default)
  if limit == 0 then return nil end
  who.pays = true
  local key, amounts = K.window(who.key, 'tokens'), K.amounts(who.key, 'tokens')
  -- A thousand in one call: Redis serves others too, and what is left counts for a moment longer.
  local gone, tokens = redis.call('ZRANGEBYSCORE', key, '-inf', now - SPAN, 'LIMIT', 0, 1000), 0
  for _, entry in ipairs(gone) do
    tokens = tokens + (redis.call('HGET', amounts, entry) or 0)
    redis.call('HDEL', amounts, entry)
    redis.call('ZREM', key, entry)
  end
  if tokens ~= 0 then redis.call('HINCRBY', amounts, 'total', -tokens) end
  local total = tonumber(redis.call('HGET', amounts, 'total') or 0)
  local left = math.max(0, limit - total)
  who.rates[#who.rates + 1] = {'tokens', limit, left, first_leaves(key, now)}
  if cost > limit then return {'too_costly', who.tenant, who.rates, limit} end
  if cost <= left then
    who.rates[#who.rates][3] = left - cost
    return nil
  end
  who.rates[#who.rates][4] = tokens_leave(key, amounts, total + cost - limit, now)
  return {'limited', who.tenant, who.rates, 'tokens'}
end

-- Counts `cost` tokens of a job in the minute of its key; settle_window() corrects them when the job has ended.
local function count_tokens(who, job, cost, now)
  if not who.pays then return end
  local key, amounts = K.window(who.key, 'tokens'), K.amounts(who.key, 'tokens')
  redis.call('ZADD', key, now, job)
  redis.call('HSET', amounts, job, cost)
  redis.call('HINCRBY', amounts, 'total', cost)
  redis.call('PEXPIRE', key, SPAN)
  redis.call('PEXPIRE', amounts, SPAN)
end

-- May the key have one more job in flight? Returns the refusal, or nil.
local function check_jobs(who, default)
  local limit = limit_of(who, 'jobs', default)
  if limit == 0 then return nil end
  local used = tonumber(redis.call('HGET', K.in_flight(who.tenant), who.key) or 0)
  who.rates[#who.rates + 1] = {'jobs', limit, math.max(0, limit - used - 1), 0}
  if used >= limit then return {'limited', who.tenant, who.rates, 'jobs'} end
  return nil
end

-- The priority a job gets: at most the key's highest, and its tenant's, which is normal unless raised.
local RANK = {low = 1, normal = 2, high = 3}
local function priority_of(who, wanted)
  local most = redis.call('HGET', K.tenant(who.tenant), 'max_priority') or 'normal'
  for _, name in ipairs({wanted, who.own.max_priority or wanted}) do
    if RANK[name] < RANK[most] then most = name end
  end
  return most
end

-- The record of a job if it is the caller's tenant's; or nil and the refusal to reply.
local function job_of(who, job)
  local j = record(K.job(job))
  if j and j.tenant == who.tenant then return j, nil end
  if not j and redis.call('GET', K.gone(job)) == who.tenant then return nil, {'gone', who.tenant, who.rates} end
  return nil, {'unknown', who.tenant, who.rates}
end

-- The job a caller names, counted as a poll. Returns who and the job's record, or nil, nil and the refusal to reply.
local function enter_job(a, now)
  local who, refusal = enter(a, 'polls', now)
  if refusal then return nil, nil, refusal end
  local j
  j, refusal = job_of(who, a.job)
  return who, j, refusal
end

-- Of whom a question is: of the caller whose JSON {key, digest or token, request, limit} it is, counted as a poll, or,
-- for "", of the tenant that an operator names. Returns tenant and rates, or nil, nil and the refusal to reply.
local function asked_of(caller, named, now)
  if caller == '' then return named, {}, nil end
  local who, refusal = enter(cjson.decode(caller), 'polls', now)
  if refusal then return nil, nil, refusal end
  return who.tenant, who.rates, nil
end
