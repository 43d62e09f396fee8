-- What keepers export: totals since the beginning, and what waits.
-- Keys:  engines engine queue struck solitary bells totals outbox_totals undelivered dead_letters dead_deliveries
-- Reply: {{engine, {field, count, ...}, queued, struck, solitary, running, bells}, ...}
--        {outcome, deliveries, ...} {backlog, ms of the oldest, dead letters, dead deliveries} INFO memory
local engines = {}
for i, engine in ipairs(redis.call('SMEMBERS', K.engines)) do
  engines[i] = {engine, redis.call('HGETALL', K.totals(engine)), redis.call('ZCARD', K.queue(engine)),
    redis.call('ZCARD', K.struck(engine)), redis.call('ZCARD', K.solitary(engine)),
    tonumber(redis.call('HGET', K.engine(engine), 'running') or 0), redis.call('LLEN', K.bells(engine))}
end
local oldest = tonumber(redis.call('ZRANGE', K.undelivered, 0, 0, 'WITHSCORES')[2] or nil)
return {engines, redis.call('HGETALL', K.outbox_totals),
  {redis.call('ZCARD', K.undelivered), oldest and math.max(0, now_ms() - oldest) or 0, redis.call('ZCARD', K.dead_letters),
    redis.call('ZCARD', K.dead_deliveries)}, redis.call('INFO', 'memory')}
