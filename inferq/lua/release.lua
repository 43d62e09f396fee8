-- Hands a run back unfinished: to its queue under its old tag, or to its end when it was told to stop.
-- ARGV 1: run  2: fence  3: strikes to add (0: nobody is suspected)  4: strikes at which it is given up as poison
-- Keys:  job idempotency deadlines retention run request output events members dead_letters sharing leases engine
--        arrivals flows paces waiting_jobs active queue struck solitary aboard tenant usage in_flight amounts turns
--        receivers receiver due sending delivery transitions work outbox bells totals undelivered
-- Reply: outcome bells; outcome: queued | cancelled | expired | failed | refused (not this attempt's any more)
-- Replay: a second release finds another status and is refused, and counted once more as a write that came too late.
local run, fence = ARGV[1], ARGV[2]
local r = record(K.run(run))
local now = now_ms()
even_when_full()
if not r or r.fence ~= fence or r.status ~= 'in_progress' then
  if r then tally(r.engine, 'fenced release') end
  return {'refused', 0}
end
disembark(run, r)
if r.abort then
  finish_abort(run, r, now)
  return {r.abort, 0}
end
if ARGV[3] ~= '0' then
  r.strikes = redis.call('HINCRBY', K.run(run), 'strikes', ARGV[3])
  tally(r.engine, 'strikes')
end
if tonumber(r.strikes) >= tonumber(ARGV[4]) then
  bury(run, r, now, 'poison', 'the engine died ' .. r.strikes .. ' times while this job was running', '0')
  return {'failed', bells(r.engine)}
end
requeue(run, r)
return {'queued', bells(r.engine)}
