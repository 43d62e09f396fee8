"""The Celery application Flower looks through: ``celery -A deploy.flower_app flower --conf=deploy/flowerconfig.py``."""

import sys
from typing import Final

from inferq.errors import InferqError
from inferq.queue import make_celery
from inferq.settings import load_settings

#: Flower keeps connections for events and asks several workers at once; with the few that others need it starves.
CONNECTIONS: Final = 32

try:
    app = make_celery(load_settings())
except InferqError as error:
    sys.exit(f"inferq flower: {error}")
app.conf.broker_pool_limit = CONNECTIONS
