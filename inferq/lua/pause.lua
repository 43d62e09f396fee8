-- Stops or resumes the claims of an engine's queue. Jobs are accepted all the while, and what runs goes on.
-- ARGV 1: engine  2: 1 to pause, 0 to resume
-- Keys:  engines engine work
-- Reply: unknown | done
-- Replay: pausing twice is pausing.
local engine = ARGV[1]
if redis.call('SISMEMBER', K.engines, engine) == 0 then return 'unknown' end
even_when_full()
if ARGV[2] == '1' then
  redis.call('HSET', K.engine(engine), 'paused_ms', now_ms())
else
  redis.call('HDEL', K.engine(engine), 'paused_ms')
  redis.call('PUBLISH', K.work(engine), '')
end
return 'done'
