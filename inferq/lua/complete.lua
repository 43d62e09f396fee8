-- Ends a run with its text: run, output, cache entry and every member in one step, if the fence still holds.
-- ARGV 1: run  2: fence  3: text  4: JSON {finish_reason, prompt_tokens, completion_tokens, ttft_ms, cache_ttl_s}
--      5: cache entry (JSON, opaque here; empty: not stored by this script; not stored either when Redis is full)
-- Keys:  job idempotency deadlines retention run request output events members sharing leases engine flows paces
--        waiting_jobs active queue struck solitary aboard memory tenant usage in_flight amounts turns receivers receiver
--        due sending delivery cache transitions outbox totals undelivered
-- Reply: {outcome, runs of the engine that wait}; outcome: 1 done | 2 was already done by this very attempt |
--        0 refused: not this attempt's any more
local run, fence = ARGV[1], ARGV[2]
local r = record(K.run(run))
if not r then return {0, 0} end
if r.fence == fence and r.status == 'completed' then return {2, waiting(r.engine)} end
local now = now_ms()
local d = cjson.decode(ARGV[4])
even_when_full()
if r.fence ~= fence or r.status ~= 'in_progress' then
  tally(r.engine, 'fenced complete')
  return {0, waiting(r.engine)}
end
disembark(run, r)
unshare(run, r)
measure(r.engine, tonumber(r.cost), now - r.started_ms)
redis.call('DEL', K.request(run))
redis.call('HDEL', K.run(run), 'abort')  -- a result that arrives while cancelling wins
redis.call('HSET', K.run(run), 'status', 'completed', 'finish_reason', d.finish_reason,
  'prompt_tokens', d.prompt_tokens, 'completion_tokens', d.completion_tokens, 'ttft_ms', d.ttft_ms, 'ended_ms', now)
redis.call('SET', K.output(run), ARGV[3])
if ARGV[5] ~= '' and not full(now) then redis.call('SET', K.cache(r.scope, r.fp), ARGV[5], 'EX', d.cache_ttl_s) end
r.prompt_tokens, r.completion_tokens, r.finish_reason = d.prompt_tokens, d.completion_tokens, d.finish_reason
end_members(run, r, 'completed', now, d.prompt_tokens + d.completion_tokens)
return {1, waiting(r.engine)}
