-- Where waiting runs stand, for those who follow their jobs.
-- ARGV run, run, ...
-- Keys:  run engine queue struck solitary
-- Reply: {rank, ms to wait, rank, ms to wait, ...}; -1: nobody can say, or it does not wait
local out = {}
for _, run in ipairs(ARGV) do
  local r = redis.call('HMGET', K.run(run), 'engine', 'tag', 'strikes', 'lost', 'status')
  local rank, wait = false, false
  if r[5] == 'queued' then rank, wait = place(run, {engine = r[1], tag = r[2], strikes = r[3], lost = r[4]}) end
  out[#out + 1] = rank or -1
  out[#out + 1] = wait or -1
end
return out
