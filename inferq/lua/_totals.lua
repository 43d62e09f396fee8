-- Shared steps: what keepers export. Counted by the scripts themselves: a process that is killed takes no count along.

-- Counts an event of an engine.
local function tally(engine, what)
  redis.call('HINCRBY', K.totals(engine), what, 1)
end

-- Notes ms in a histogram of an engine. Upper bounds in ms, as in inferq/measures.py; one bucket more is for what lies
-- beyond them.
local BOUNDS = {50, 100, 250, 500, 1000, 2500, 5000, 10000, 15000, 30000, 60000, 120000, 300000, 600000, 1800000}
local function observe(engine, what, ms)
  local bucket = 1
  while BOUNDS[bucket] and ms > BOUNDS[bucket] do bucket = bucket + 1 end
  redis.call('HINCRBY', K.totals(engine), what .. ' ' .. bucket, 1)
  redis.call('HINCRBY', K.totals(engine), what .. ' sum', math.max(0, ms))
end
