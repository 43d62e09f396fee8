-- A keeper's tick: ends jobs whose deadline has passed. A job alone in the engine is stopped first.
-- ARGV 1: most jobs per tick
-- Keys:  deadlines job run members queue leases retention request output aborts
-- Reply: number of jobs looked at
return expire_due(now_ms(), ARGV[1])
