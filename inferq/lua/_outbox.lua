-- Shared steps: what receivers are told (https://www.standardwebhooks.com, specification 1.0).

-- A receiver is a host that a tenant names: deliveries to it share a line, a bound on how many are under way, a breaker.
-- Its standing is proven while its last answer was good and quick. Those of the other standing are sent from other places
-- of a keeper, so that slow and dead receivers, however many, delay nobody who answers. In either standing tenants take
-- turns, so that one with many receivers of its own delays no other tenant.
local OTHER = {proven = 'unproven', unproven = 'proven'}

-- Deliveries under way at once to a receiver whose last answer was good; to any other, one.
local AT_ONCE = 4
local function at_once(receiver)
  return redis.call('HGET', K.receiver(receiver), 'good') == '1' and AT_ONCE or 1
end

-- Places a receiver, or nobody, among those of its tenant, and the tenant among those who wait for a turn.
local function take_place(standing, tenant, receiver, at)
  local lines, turns = K.receivers(standing, tenant), K.turns(standing)
  if at then
    redis.call('ZADD', lines, at, receiver)
  elseif redis.call('ZREM', lines, receiver) == 0 then
    return
  end
  local first = tonumber(redis.call('ZRANGE', lines, 0, 0, 'WITHSCORES')[2] or nil)
  local turn = tonumber(redis.call('ZSCORE', turns, tenant) or nil)
  if not first then
    redis.call('ZREM', turns, tenant)
  elseif not turn or turn < first or turn > now_ms() then  -- otherwise it waits its turn already
    redis.call('ZADD', turns, first, tenant)
  end
end

-- A receiver's place: the instant at which its next delivery is due, its breaker lets one pass, or a lease ends.
local function line_up(receiver)
  local said = redis.call('HMGET', K.receiver(receiver), 'standing', 'open_until_ms')
  local standing, till, tenant = said[1] or 'unproven', tonumber(said[2] or 0), receiver:match('^%S+')
  local due = redis.call('ZRANGE', K.due(receiver), 0, 0, 'WITHSCORES')[2]
  local lost = redis.call('ZRANGE', K.sending(receiver), 0, 0, 'WITHSCORES')[2]
  local at = due and redis.call('ZCARD', K.sending(receiver)) < at_once(receiver) and math.max(tonumber(due), till)
  if lost then at = math.min(at or math.huge, tonumber(lost)) end
  take_place(OTHER[standing], tenant, receiver, nil)
  take_place(standing, tenant, receiver, at)
end

local RECEIVER_MS = 86400000  -- how long it is remembered how a receiver answered

local function receiver_of(tenant, url)
  return tenant .. ' ' .. url:match('^%a+://[^/?#]+')
end

-- Lets a receiver be tried now, whatever its breaker says: somebody asks for it.
local function pass_breaker(receiver)
  redis.call('HSET', K.receiver(receiver), 'open_until_ms', 0)
  redis.call('PEXPIRE', K.receiver(receiver), RECEIVER_MS)
end

-- Puts a delivery into the outbox, due at `at`. f: tenant, event, url, job ('': none), and perhaps request_id, trace.
local function post(id, f, body, at, now)
  local receiver = receiver_of(f.tenant, f.url)
  redis.call('HSET', K.delivery(id), 'v', VERSION, 'job', f.job, 'tenant', f.tenant, 'event', f.event, 'url', f.url,
    'receiver', receiver, 'body', body, 'created_ms', now, 'since_ms', now, 'status', 'pending', 'step', 0, 'number', 0)
  for _, name in ipairs({'request_id', 'trace'}) do
    if f[name] then redis.call('HSET', K.delivery(id), name, f[name]) end
  end
  redis.call('ZADD', K.due(receiver), at, id)
  redis.call('ZADD', K.undelivered, now, id)
  line_up(receiver)
  redis.call('PUBLISH', K.outbox, '')
end

-- An instant in ms as RFC 3339 has it.
local function instant(ms)
  local days, year, month = math.floor(ms / 86400000), 1970, 1
  local function length_of_year() return (year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)) and 366 or 365 end
  while days >= length_of_year() do
    days = days - length_of_year()
    year = year + 1
  end
  local lengths = {31, length_of_year() - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
  while days >= lengths[month] do
    days = days - lengths[month]
    month = month + 1
  end
  local s = math.floor(ms / 1000) % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, days + 1, math.floor(s / 3600),
    math.floor(s / 60) % 60, s % 60, ms % 1000)
end

local function event_id(job, event)
  return 'msg_' .. job .. '_' .. event
end

-- Writes the delivery of a job's event, if its owner asked for it. Bytes: a payload stays below what receivers take.
local MOST_BYTES = 20000
local function tell(job, j, r, event, now)
  if not (' ' .. j.hook_events .. ' '):find(' ' .. event .. ' ', 1, true) then return end
  local none = cjson.null
  local function at(ms) return ms and instant(tonumber(ms)) or none end
  local data = {id = job, status = j.status, model = j.model, attempt = tonumber(j.attempt), created_at = at(j.created_ms),
    started_at = at(j.started_ms), completed_at = at(j.completed_ms), error = none, usage = none, output = none,
    metadata = j.metadata and cjson.decode(j.metadata) or none, urls = {self = '/v1/jobs/' .. job}}
  if j.error_code then
    data.error = {code = j.error_code, message = j.error_message, retryable = j.error_retryable == '1'}
  elseif j.status == 'expired' then
    local when = j.ran == '1' and 'while it ran' or 'before it started'
    data.error = {code = 'deadline_exceeded', message = 'The deadline passed ' .. when .. '.', retryable = true}
  end
  if j.status == 'completed' then
    data.usage = {prompt_tokens = tonumber(r.prompt_tokens), completion_tokens = tonumber(r.completion_tokens)}
    if j.hook_output and redis.call('STRLEN', K.output(j.run)) < MOST_BYTES then
      data.output = {text = redis.call('GET', K.output(j.run)), finish_reason = r.finish_reason}
    end
  end
  local event_json = {type = 'job.' .. event, timestamp = instant(now), data = data}
  local payload = cjson.encode(event_json)
  for _, large in ipairs({'output', 'metadata'}) do
    if #payload >= MOST_BYTES then
      data[large] = none
      payload = cjson.encode(event_json)
    end
  end
  redis.call('HINCRBY', K.job(job), 'open', 1)
  post(event_id(job, event), {tenant = j.tenant, event = 'job.' .. event, url = j.hook_url, job = job,
    request_id = j.request_id, trace = j.trace}, payload, now, now)
end

-- Lets a job's retention begin, if it has ended and so have its deliveries.
local function keep_job(job, now)
  local j = redis.call('HMGET', K.job(job), 'status', 'ttl_ms', 'open')
  if not TERMINAL[j[1]] or tonumber(j[3] or 0) > 0 then return end
  local expires = now + tonumber(j[2])
  redis.call('HSET', K.job(job), 'expires_ms', expires)
  redis.call('ZADD', K.retention, expires, job)
end

-- Ends a delivery as delivered or dead. That of no job, a test, is forgotten after an hour.
local function end_delivery(id, d, status, now)
  redis.call('HSET', K.delivery(id), 'status', status, 'ended_ms', now)
  redis.call('ZREM', K.undelivered, id)
  if d.job == '' then
    redis.call('PEXPIRE', K.delivery(id), 3600000)
    redis.call('PEXPIRE', K.attempts(id), 3600000)
    announce(id, 'completed', 1)
    return
  end
  redis.call('HINCRBY', K.outbox_totals, status, 1)
  if status == 'dead' then redis.call('ZADD', K.dead_deliveries, now, id) end
  redis.call('HINCRBY', K.job(d.job), 'open', -1)
  keep_job(d.job, now)
end

-- Begins the schedule of a delivery again, at once, whatever its breaker says; what is under way stays as it is.
local function deliver_again(id, d, now)
  if redis.call('ZSCORE', K.sending(d.receiver), id) then return end
  redis.call('HSET', K.delivery(id), 'status', 'pending', 'step', 0, 'since_ms', now)
  if d.status ~= 'pending' then
    redis.call('HDEL', K.delivery(id), 'ended_ms', 'reason')
    redis.call('ZREM', K.dead_deliveries, id)
    redis.call('HINCRBY', K.job(d.job), 'open', 1)
    redis.call('HDEL', K.job(d.job), 'expires_ms')
    redis.call('ZREM', K.retention, d.job)
  end
  pass_breaker(d.receiver)
  redis.call('ZADD', K.due(d.receiver), now, id)
  redis.call('ZADD', K.undelivered, now, id)
  line_up(d.receiver)
  redis.call('PUBLISH', K.outbox, '')
end

local EVENTS = {'started', 'completed', 'failed', 'cancelled', 'expired'}
local function forget_delivery(id)
  local d = record(K.delivery(id))
  if not d then return end
  redis.call('ZREM', K.due(d.receiver), id)
  redis.call('ZREM', K.sending(d.receiver), id)
  redis.call('ZREM', K.undelivered, id)
  redis.call('ZREM', K.dead_deliveries, id)
  redis.call('DEL', K.delivery(id), K.attempts(id))
  line_up(d.receiver)
end

local function forget_deliveries(job)
  for _, event in ipairs(EVENTS) do forget_delivery(event_id(job, event)) end
end

-- A delivery as its owner sees it: {id, {fields}, {attempt, JSON, ...}, due ms or nil, under way (0|1)}.
local function delivery_shown(id, d)
  local fields = {}
  for name, value in pairs(d) do
    if name ~= 'body' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  local due = redis.call('ZSCORE', K.due(d.receiver), id)
  if due then due = math.max(tonumber(due), tonumber(redis.call('HGET', K.receiver(d.receiver), 'open_until_ms') or 0)) end
  return {id, fields, redis.call('HGETALL', K.attempts(id)), due,
    redis.call('ZSCORE', K.sending(d.receiver), id) and 1 or 0}
end
