"""The floor: the wiring one finds everywhere. One Celery task per prompt, one ``LLM.generate`` per task, solo pool.

``celery -A bench.naive worker --pool=solo``. Results come back through Celery's Redis backend.
"""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init

from inferq.settings import load_settings

settings = load_settings()
app = Celery("naive", broker=settings.redis_url, backend=settings.redis_url, set_as_current=False)
app.conf.worker_prefetch_multiplier = 1
app.conf.task_acks_late = True
app.conf.broker_connection_retry_on_startup = True
_engine: dict[str, Any] = {}


@worker_init.connect  # type: ignore[untyped-decorator]
def _load(**_: Any) -> None:
    from vllm import LLM

    from workers.placement import leave_a_core
    from workers.vllm_engine import engine_options

    leave_a_core()
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    _engine["llm"] = LLM(**engine_options(settings))


@app.task(name="naive.generate")  # type: ignore[untyped-decorator]
def generate(prompt: str, max_tokens: int) -> dict[str, Any]:
    """Answer one prompt; the engine idles while the task is fetched and its result stored."""
    from vllm import SamplingParams

    outputs = _engine["llm"].generate([prompt], SamplingParams(max_tokens=max_tokens, temperature=0.0), use_tqdm=False)
    answer = outputs[0].outputs[0]
    return {"text": answer.text, "tokens": len(answer.token_ids)}
