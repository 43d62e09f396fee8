-- A keeper's tick: how many bells each engine's Celery list lacks.
-- Keys:  engines engine queue struck solitary engine_workers worker bells
-- Reply: {engine, bells, engine, bells, ...}
local now = now_ms()
local out = {}
for _, engine in ipairs(redis.call('SMEMBERS', K.engines)) do
  count_slots(engine, now)
  out[#out + 1] = engine
  out[#out + 1] = bells(engine)
end
return out
