-- Runs that were given up for good, the latest first. Nothing of what was asked or answered is shown.
-- ARGV 1: how many
-- Keys:  job run members dead_letters
-- Reply: {{run, buried ms, engine, attempts, strikes, lost, error code, tenants and jobs {tenant, job, ...}}, ...}
local out = {}
local found = redis.call('ZREVRANGE', K.dead_letters, 0, ARGV[1] - 1, 'WITHSCORES')
for i = 1, #found, 2 do
  local run = found[i]
  local r = redis.call('HMGET', K.run(run), 'engine', 'attempt', 'strikes', 'lost')
  local code, jobs = '', {}
  for _, job in ipairs(redis.call('ZRANGE', K.members(run), 0, 99)) do
    local j = redis.call('HMGET', K.job(job), 'tenant', 'error_code')
    code = j[2] or code
    jobs[#jobs + 1] = j[1] or ''
    jobs[#jobs + 1] = job
  end
  out[#out + 1] = {run, tonumber(found[i + 1]), r[1] or '', tonumber(r[2]), tonumber(r[3]), tonumber(r[4]), code, jobs}
end
return out
