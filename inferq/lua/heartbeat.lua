-- Renews the leases of all runs that a worker has in memory and records what the worker says of itself. It ends jobs
-- past their deadline first, so that running runs are stopped in time although no keeper lives.
-- ARGV 1: worker id  2: engine  3: lease in ms  4: JSON {state, slots, running, model, host, pid, ...} (values: strings)
--      5..: run, fence, tokens written so far, run, fence, tokens, ...
-- Keys:  job idempotency deadlines retention run request output events members dead_letters sharing leases engines engine
--        arrivals flows paces waiting_jobs active queue struck solitary aboard engine_workers worker tenant usage
--        in_flight amounts turns receivers receiver due sending delivery transitions aborts outbox bells totals
--        undelivered
-- Reply: {bells, run, reason, run, reason, ...}; reason is lost, cancelled or expired: stop that run.
-- Replay: renewing twice is renewing.
local worker, engine, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = now_ms()
even_when_full()
expire_due(now, 50)
local stop = {0}
for i = 5, #ARGV, 3 do
  local r = redis.call('HMGET', K.run(ARGV[i]), 'status', 'fence', 'abort')
  if r[1] ~= 'in_progress' or r[2] ~= ARGV[i + 1] then
    stop[#stop + 1] = ARGV[i]; stop[#stop + 1] = 'lost'
  else
    redis.call('ZADD', K.leases, now + lease, ARGV[i])
    redis.call('HSET', K.run(ARGV[i]), 'tokens', ARGV[i + 2])
    if r[3] then stop[#stop + 1] = ARGV[i]; stop[#stop + 1] = r[3] end
  end
end
local fields, said = {'engine', engine, 'beat_ms', now}, cjson.decode(ARGV[4])
if said.state == 'dead' and redis.call('HGET', K.worker(worker), 'state') ~= 'dead' then tally(engine, 'deaths') end
for name, value in pairs(said) do
  fields[#fields + 1] = name; fields[#fields + 1] = value
end
redis.call('SADD', K.engines, engine)
redis.call('HSET', K.worker(worker), unpack(fields))
redis.call('PEXPIRE', K.worker(worker), lease)
redis.call('ZADD', K.engine_workers(engine), now + lease, worker)
count_slots(engine, now)
stop[1] = bells(engine)
return stop
