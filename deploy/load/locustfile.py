"""Load for Locust: clients that submit, wait for the answer, and sometimes ask what was asked before.

`docker compose --profile load up load`, then http://127.0.0.1:8089; without Docker:

    INFERQ_API_KEY=iq_… locust -f deploy/load/locustfile.py --host http://127.0.0.1:8000
"""

import os
import random
from pathlib import Path
from typing import Final

from locust import HttpUser, between, task

SECRET: Final = Path("/run/secrets/bootstrap_api_key")
#: Seconds a poll may wait at the server; and polls until a client gives up.
WAIT_S: Final = 20
POLLS: Final = 15
#: Prompts that come back, so that the cache has something to do.
COMMON: Final = 20
TOKENS: Final = 64


class Client(HttpUser):  # type: ignore[misc]  # untyped, and not installed here
    """One client: a job, its answer, a pause."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """Find the key."""
        key = os.environ.get("INFERQ_API_KEY", "") or SECRET.read_text().strip()
        self.client.headers["X-API-Key"] = key

    @task(3)
    def ask_something_new(self) -> None:
        """Ask what nobody has asked."""
        self._ask(f"Question {random.getrandbits(64):x}: what is a lease?")

    @task(1)
    def ask_something_common(self) -> None:
        """Ask what others ask too."""
        self._ask(f"Question {random.randrange(COMMON)}: what is a lease?")

    def _ask(self, prompt: str) -> None:
        body = {"prompt": prompt, "max_tokens": TOKENS}
        answer = self.client.post("/v1/jobs", json=body, name="submit")
        if answer.status_code != 202:
            return
        path = answer.headers["Location"]
        for _ in range(POLLS):
            job = self.client.get(path, headers={"Prefer": f"wait={WAIT_S}"}, name="wait for the answer")
            if job.status_code != 200 or job.json()["terminal"]:
                return
