-- A worker that stops takes its name off the list, so that nobody rings for it any more.
-- ARGV 1: worker id  2: engine
-- Keys:  engine turn engine_workers worker
-- Reply: 1
redis.call('DEL', K.worker(ARGV[1]), K.turn(ARGV[1]))
redis.call('ZREM', K.engine_workers(ARGV[2]), ARGV[1])
count_slots(ARGV[2], now_ms())
return 1
