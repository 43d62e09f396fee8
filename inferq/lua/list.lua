-- The caller's jobs, newest first, without outputs.
-- ARGV 1: JSON {key, digest or token, request, limit, status (or ""), after (job id or ""), count}
-- Keys:  job tenant_jobs run tenant tenants api_key window
-- Reply: unauthorized | limited tenant rates policy | jobs tenant rates {{id, {job fields}, {run fields}}, ...} cursor-or-""
local a = cjson.decode(ARGV[1])
local now = now_ms()
local who, refusal = enter(a, 'polls', now)
if refusal then return refusal end
local top = a.after == '' and '+' or '(' .. a.after
local found, cursor = {}, ''
-- At most ten pages are looked at in one call: a rare status costs the caller more calls, not Redis a long script.
for _ = 1, 10 do
  local ids = redis.call('ZREVRANGEBYLEX', K.tenant_jobs(who.tenant), top, '-', 'LIMIT', 0, 100)
  if #ids == 0 then cursor = ''; break end
  for _, id in ipairs(ids) do
    local j = redis.call('HMGET', K.job(id), 'status', 'run', 'expires_ms')
    local kept = not j[3] or tonumber(j[3]) > now
    if j[1] and kept and (a.status == '' or j[1] == a.status) then
      if #found == a.count then return {'jobs', who.tenant, who.rates, found, cursor} end
      found[#found + 1] = {id, redis.call('HGETALL', K.job(id)), redis.call('HGETALL', K.run(j[2]))}
    end
    cursor = id
    top = '(' .. id
  end
end
return {'jobs', who.tenant, who.rates, found, cursor}
