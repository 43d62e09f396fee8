-- A keeper's tick: drops jobs whose result has been kept long enough.
-- ARGV 1: most jobs per tick
-- Keys:  job gone tenant_jobs retention run request output events members dead_letters sharing leases engine arrivals
--        queue struck solitary aboard turns receivers receiver due sending delivery attempts dead_deliveries undelivered
-- Reply: number of jobs dropped
local due = redis.call('ZRANGEBYSCORE', K.retention, '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
for _, job in ipairs(due) do
  local j = record(K.job(job))
  if j then forget(job, j) else redis.call('ZREM', K.retention, job) end
end
return #due
