-- Hands a run back unfinished: to the queue under its old tag, or to its end when it was told to stop.
-- ARGV 1: run  2: fence  3: strikes to add (0: nobody is suspected)
-- Keys:  run leases queue members job deadlines retention request output bells
-- Reply: outcome bells; outcome: queued | cancelled | expired | refused (not this attempt's any more)
-- Replay: a second release finds another status and is refused.
local run, fence = ARGV[1], ARGV[2]
local r = record(K.run(run))
if not r or r.fence ~= fence or r.status ~= 'in_progress' then return {'refused', 0} end
if r.abort then
  finish_abort(run, r, now_ms())
  return {r.abort, 0}
end
requeue(run, r)
if ARGV[3] ~= '0' then redis.call('HINCRBY', K.run(run), 'strikes', ARGV[3]) end
return {'queued', bells(r.engine)}
