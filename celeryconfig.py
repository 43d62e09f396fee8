"""Celery's own settings, each with its reason. Data only; the broker's address comes from inferq.settings."""

from inferq.keys import CELERY_PREFIX

# A message is a bell without content: JSON, nothing else is accepted.
task_serializer = "json"
accept_content = ["json"]
event_serializer = "json"

# The job record is the result: there is no result backend to disagree with it.
task_ignore_result = True
# A bell is acknowledged when it is received. What it would have started is in the record, under a lease, so a message
# that dies with its worker loses nothing, and a dropped connection has nothing to deliver twice.
task_acks_late = False

# The engine is a child process and its loop a thread: prefork cannot hold them, and threads share one engine.
worker_pool = "threads"
# One bell per free slot: a worker that hoards bells hides them from its neighbours.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
# Task events feed Flower.
worker_send_task_events = True
worker_hijack_root_logger = False
worker_redirect_stdouts = False

broker_connection_retry_on_startup = True
# None: a worker outlives any outage of Redis.
broker_connection_max_retries = None
# An API thread must not wait for ever for a connection.
broker_pool_limit = 32
broker_pool_acquire_timeout = 3
# A lost bell is rung again by the keeper; a caller must not wait for Celery's long retries.
task_publish_retry = True
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.05, "interval_max": 0.1}

task_create_missing_queues = True
broker_transport_options = {
    # Not a recovery path: nothing stays unacknowledged.
    "visibility_timeout": 86400,
    "socket_timeout": 8,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    # Half-open connections are noticed within about twice this many seconds.
    "health_check_interval": 10,
    "global_keyprefix": CELERY_PREFIX,
    # One list per queue: order is decided by the claim script, not by Celery.
    "queue_order_strategy": "priority",
    "priority_steps": [0],
}
