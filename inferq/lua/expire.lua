-- A keeper's tick: ends jobs whose deadline has passed. A job alone in the engine is stopped first.
-- ARGV 1: most jobs per tick
-- Keys:  deadlines job run members queue leases retention request output aborts
-- Reply: number of jobs looked at
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', K.deadlines, '-inf', now, 'LIMIT', 0, ARGV[1])
for _, job in ipairs(due) do
  redis.call('ZREM', K.deadlines, job)
  local j = record(K.job(job))
  if j and not TERMINAL[j.status] then leave(job, j, 'expired', now) end
end
return #due
