"""Flower's settings, each with its reason: ``celery -A deploy.flower_app flower --conf=deploy/flowerconfig.py``.

Read by Flower; the names are Flower's. Nothing is given on the command line, which every user of a machine can see.
"""

from typing import Final

from inferq.errors import InferqError
from inferq.settings import load_settings

try:
    _settings = load_settings()
except InferqError as error:
    raise SystemExit(f"inferq flower: {error}") from None
if _settings.flower_password is None:
    raise SystemExit("inferq flower: FLOWER_PASSWORD: Flower shows who runs what; set a password for FLOWER_USER")

# /metrics and /healthcheck are open in Flower although it asks for a password: the address is what protects them.
address: Final = _settings.flower_host
port: Final = _settings.flower_port
basic_auth: Final = [f"{_settings.flower_user}:{_settings.flower_password.get_secret_value()}"]
# Looking only: shutting workers down or revoking tasks is no way to steer inferq (`python -m inferq` is).
read_only: Final = True
# Behind a proxy it lives beside the API.
url_prefix: Final = "flower"
# What it has seen outlives it.
persistent: Final = True
db: Final = _settings.flower_db
state_save_interval: Final = 60_000  # ms
max_tasks: Final = 10_000
tasks_columns: Final = "name,uuid,state,result,exception,received,runtime,worker"
task_runtime_metric_buckets: Final = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0]
