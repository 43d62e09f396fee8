"""gunicorn's settings of the API, each with its reason."""

from inferq.errors import InferqError
from inferq.settings import load_settings

try:
    settings = load_settings()
except InferqError as error:
    raise SystemExit(f"inferq api: {error}") from None

bind = f"{settings.api_host}:{settings.api_port}"
# One process serves well over a thousand requests a second; more of them would take cores from an engine on the CPU.
workers = settings.api_processes
# Each long-poll holds a thread, which costs little while it waits.
worker_class = "gevent"
threads = 64
# A long-poll may be held for 60 s; the arbiter must not take its worker for stuck.
timeout = 90
graceful_timeout = 30
keepalive = 75
accesslog = None
control_socket_disable = True
