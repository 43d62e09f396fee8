-- A keeper's tick: drops jobs whose result has been kept long enough.
-- ARGV 1: most jobs per tick
-- Keys:  retention job gone tenant_jobs members run request output
-- Reply: number of jobs dropped
local due = redis.call('ZRANGEBYSCORE', K.retention, '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
for _, job in ipairs(due) do
  local j = record(K.job(job))
  if j then forget(job, j) else redis.call('ZREM', K.retention, job) end
end
return #due
