-- Cancels a tenant's queued jobs, a page at a time.
-- ARGV 1: tenant  2: cursor of the call before ("" at first)  3: jobs to look at
-- Keys:  job tenant_jobs idempotency deadlines retention run request output events members dead_letters sharing leases
--        engine arrivals flows paces waiting_jobs active queue struck solitary aboard tenant usage in_flight amounts
--        turns receivers receiver due sending delivery transitions aborts outbox totals undelivered
-- Reply: {jobs cancelled, cursor or ""}
-- Replay: a cancelled job is not cancelled again.
local tenant, now = ARGV[1], now_ms()
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local cancelled = 0
local ids = redis.call('ZRANGEBYLEX', K.tenant_jobs(tenant), from, '+', 'LIMIT', 0, ARGV[3])
for _, job in ipairs(ids) do
  local j = record(K.job(job))
  if j and j.status == 'queued' then
    leave(job, j, 'cancelled', now)
    cancelled = cancelled + 1
  end
end
return {cancelled, ids[#ids] or ''}
