-- Ends a run with an error, if the fence still holds. The request is kept, so that an operator can requeue it.
-- ARGV 1: run  2: fence  3: code  4: message (never a prompt or an answer)  5: 1 when a retry may help
-- Keys:  job idempotency deadlines retention run request output events members dead_letters sharing leases engine
--        arrivals flows paces waiting_jobs active queue struck solitary aboard tenant usage in_flight amounts turns
--        receivers receiver due sending delivery transitions outbox totals undelivered
-- Reply: 1 done | 2 was already done by this very attempt | 0 refused: not this attempt's any more
local run, fence = ARGV[1], ARGV[2]
local r = record(K.run(run))
if not r then return 0 end
if r.fence == fence and r.status == 'failed' then return 2 end
local now = now_ms()
even_when_full()
if r.fence ~= fence or r.status ~= 'in_progress' then
  tally(r.engine, 'fenced fail')
  return 0
end
disembark(run, r)
if r.abort then finish_abort(run, r, now); return 1 end
redis.call('HSET', K.run(run), 'status', 'failed', 'ended_ms', now)
unshare(run, r)
end_members(run, r, 'failed', now, 0, {'error_code', ARGV[3], 'error_message', ARGV[4], 'error_retryable', ARGV[5]})
return 1
