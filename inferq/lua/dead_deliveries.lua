-- Deliveries that were given up, the latest first; for operators, who may send one again or drop it.
-- ARGV 1: how many  2: retry or drop, or ""  3: delivery, to retry or drop
-- Keys:  job retention turns receivers receiver due sending delivery attempts dead_deliveries disabled outbox
--        undelivered
-- Reply: unknown | {{id, {fields}, {attempt, JSON, ...}, nil, 0}, ...}
-- Replay: unknown.
local out, now = {}, now_ms()
local found = redis.call('ZREVRANGE', K.dead_deliveries, 0, ARGV[1] - 1)
if ARGV[2] ~= '' then
  if not redis.call('ZSCORE', K.dead_deliveries, ARGV[3]) then return 'unknown' end
  found = {ARGV[3]}
end
for _, id in ipairs(found) do
  local d = record(K.delivery(id))
  out[#out + 1] = delivery_shown(id, d)
  if ARGV[2] == 'drop' then forget_delivery(id) end
  if ARGV[2] == 'retry' then
    redis.call('ZREM', K.disabled(d.tenant), d.url)
    deliver_again(id, d, now)
  end
end
return out
