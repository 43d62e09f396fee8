-- A keeper's tick: takes runs back whose lease has ended, unless Redis itself was away.
-- ARGV 1: lease in ms  2: longest gap in ms between ticks that still counts as steady  3: most runs per tick
--      4: lost leases after which a run is given up
-- Keys:  job idempotency deadlines retention run request output events members dead_letters sharing leases engine
--        arrivals flows paces waiting_jobs active queue struck solitary aboard sweep tenant usage in_flight amounts turns
--        receivers receiver due sending delivery transitions work outbox totals undelivered
-- Reply: {steady (0|1), {run, run, ...}}
-- Ticks of all keepers count together. After an outage or pause of Redis nobody is rescued for one lease, so every
-- worker that is alive can renew first.
local lease, gap, most, lost_limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()
even_when_full()
local last, since = unpack(redis.call('HMGET', K.sweep, 'last_ms', 'since_ms'))
if not last or now - tonumber(last) > gap then since = now end
redis.call('HSET', K.sweep, 'last_ms', now, 'since_ms', since)
if now - tonumber(since) < lease then return {0, {}} end
local rescued = {}
for _, run in ipairs(redis.call('ZRANGEBYSCORE', K.leases, '-inf', now, 'LIMIT', 0, most)) do
  local r = record(K.run(run))
  if not r or r.status ~= 'in_progress' then
    redis.call('ZREM', K.leases, run)
  else
    tally(r.engine, 'rescues')
    r.lost = redis.call('HINCRBY', K.run(run), 'lost', 1)
    if r.abort then
      finish_abort(run, r, now)
    elseif r.lost >= lost_limit then
      bury(run, r, now, 'worker_lost', 'the worker was lost ' .. r.lost .. ' times while this job was running', '1')
    else
      requeue(run, r)
    end
    rescued[#rescued + 1] = run
  end
end
return {1, rescued}
