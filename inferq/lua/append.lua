-- Adds what running runs have written to their event streams, for all runs of a worker at once, if their fences hold.
-- ARGV run, fence, bytes of its text before the piece, piece, run, fence, bytes, piece, ...
-- Keys:  run events memory appended
-- Reply: {bytes of text in a run's stream now, ...}; fewer than were said to be before the piece: begin there again;
--        -1: append no more, what is missing comes with the result
-- Replay: what a stream has already is not added again.
local MOST = 10000        -- pieces of one stream
local IDLE_MS = 3600000   -- a stream that nobody adds to is dropped, should nobody end its run
even_when_full()
local full_now = full(now_ms())
local ends, told = {}, {}
for i = 1, #ARGV, 4 do
  local run, fence, start, piece = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local r = redis.call('HMGET', K.run(run), 'status', 'fence')
  local stream, there = K.events(run), -1
  if r[1] == 'in_progress' and r[2] == fence and not full_now and redis.call('XLEN', stream) < MOST then
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    local of, bytes = (last and last[1] or '0-0'):match('(%d+)-(%d+)')
    there = of == fence and tonumber(bytes) or 0
    local new = start <= there and piece:sub(there - start + 1) or ''
    if new ~= '' then
      there = there + #new
      redis.call('XADD', stream, fence .. '-' .. string.format('%.0f', there), 't', new)
      redis.call('PEXPIRE', stream, IDLE_MS)
      told[#told + 1] = run
    end
  end
  ends[#ends + 1] = there
end
if #told > 0 then redis.call('PUBLISH', K.appended, table.concat(told, ' ')) end
return ends
