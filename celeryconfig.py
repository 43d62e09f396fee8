"""Celery's own settings, each with its reason. Data only; the broker's address comes from inferq.settings.

What is left unset on purpose: time limits, ``task_reject_on_worker_lost`` and soft shutdown do nothing under a pool of
threads; ``countdown``, ``eta`` and ``expires`` keep timers in a worker's memory, where inferq's are in Redis; there is
no result backend, so none of its settings matter.
"""

from inferq.keys import CELERY_PREFIX

# -- messages
# A message is a bell without content: JSON, nothing else is accepted (pickle would run what it is sent).
task_serializer = "json"
accept_content = ["json"]
event_serializer = "json"
# The job record is the result: there is no result backend to disagree with it.
task_ignore_result = True
# A bell is acknowledged when it is received. What it would have started is in the record, under a lease, so a message
# that dies with its worker loses nothing, and a dropped connection has nothing to deliver twice.
task_acks_late = False
# The queues are named after engines, and who rings need not know which there are.
task_create_missing_queues = True

# -- the worker
# The engine is a child process and its loop a thread: prefork cannot hold them, and threads share one engine.
worker_pool = "threads"
# One bell per free slot: a worker that hoards bells hides them from its neighbours.
worker_prefetch_multiplier = 1
# After a reconnect kombu forgets how many tasks run and would fetch that many again; this asks the pool instead.
worker_disable_prefetch = True
# Runs go on while the connection to the broker is away: their leases are renewed over another one, and what they
# write is fenced. Cancelling them would throw the engine's work away.
worker_cancel_long_running_tasks_on_connection_loss = False
# Flower and `celery inspect` ask over it. Cancelling does not use it: revokes live in a worker's memory.
worker_enable_remote_control = True
# Task events feed Flower.
worker_send_task_events = True
# Logs are structlog's, to standard error, and nobody else's.
worker_hijack_root_logger = False
worker_redirect_stdouts = False

# -- connections
# A stack may start in any order.
broker_connection_retry_on_startup = True
# None: a worker outlives any outage of Redis; the default gives up after a hundred tries.
broker_connection_max_retries = None
# Connections of one process for ringing, which one thread does. It waits at most so many seconds for one, by default
# for ever.
broker_pool_limit = 4
broker_pool_acquire_timeout = 3
# A lost bell is rung again by the keeper; a caller must not wait for Celery's long retries.
task_publish_retry = True
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.05, "interval_max": 0.1}

broker_transport_options = {
    # Seconds. Not a recovery path: nothing stays unacknowledged, so it may be long, and nothing is delivered twice.
    "visibility_timeout": 86400,
    # Seconds. By default a read or a publish on a dead connection waits for ever.
    "socket_timeout": 8,
    "socket_connect_timeout": 3,
    # The kernel asks an idle peer whether it lives, so that firewalls do not forget the connection.
    "socket_keepalive": True,
    # Seconds. A half-open connection is noticed within about twice as long; the default is 25.
    "health_check_interval": 10,
    # Celery's keys apart from inferq's, for ACL rules and for people who look.
    "global_keyprefix": CELERY_PREFIX,
    # One list per queue instead of four: order is decided by the claim script, not by Celery.
    "queue_order_strategy": "priority",
    "priority_steps": [0],
}
