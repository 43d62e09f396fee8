-- Counts an answer from the cache's own server, which no other script has seen.
-- ARGV 1: tenant
-- Keys:  usage
-- Reply: 1
-- Replay: counted once more; nobody is charged by it.
count_usage(ARGV[1], now_ms(), 'hits', 1)
return 1
