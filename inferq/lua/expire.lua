-- A keeper's tick: ends jobs whose deadline has passed. A job alone in the engine is stopped first.
-- ARGV 1: most jobs per tick
-- Keys:  job idempotency deadlines retention run request output events members dead_letters sharing leases engine
--        arrivals flows paces waiting_jobs active queue struck solitary aboard tenant usage in_flight amounts turns
--        receivers receiver due sending delivery transitions aborts outbox totals undelivered
-- Reply: number of jobs looked at
return expire_due(now_ms(), ARGV[1])
