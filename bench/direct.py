"""The ceiling: the same AsyncLLM with the same arguments, called directly. ``python -m bench.direct``.

Reads one JSON line ``{"clients": n, "prompts": [...], "tokens": n}`` per measurement from stdin, answers one line
``{"seconds": s, "tokens": n, "latencies": [...]}`` on stdout, the first time ``ready``.
"""

import asyncio
import json
import os
import sys
import time
from typing import IO, Any
from uuid import uuid4

from inferq.requests import GenerationRequest
from inferq.settings import load_settings


async def measure(llm: Any, prompts: list[str], clients: int, answer_tokens: int) -> dict[str, object]:
    """Answer ``prompts`` from ``clients`` closed loops, each with so many tokens."""
    from workers.vllm_engine import sampling_params

    waiting = iter(prompts)
    latencies: list[float] = []
    tokens = 0

    async def client() -> None:
        nonlocal tokens
        for prompt in waiting:
            began = time.perf_counter()
            request = GenerationRequest(prompt=prompt, max_tokens=answer_tokens, temperature=0.0)
            parameters = sampling_params(request, max_tokens=answer_tokens)
            parameters.ignore_eos = True
            async for output in llm.generate({"prompt": prompt}, parameters, uuid4().hex):
                tokens += len(output.outputs[0].token_ids)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return {"seconds": time.perf_counter() - began, "tokens": tokens, "latencies": latencies}


async def serve(answers: IO[str]) -> None:
    """Load the engine, then serve measurements until stdin ends."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from workers.placement import leave_a_core
    from workers.vllm_engine import engine_options

    leave_a_core()
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_options(load_settings())))
    try:
        print("ready", file=answers, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            found = await measure(llm, asked["prompts"], asked["clients"], asked["tokens"])
            print(json.dumps(found), file=answers, flush=True)
    finally:
        llm.shutdown()


def own_stdout() -> IO[str]:
    """Return stdout for our answers alone: vLLM, and the processes it starts, log to what was stdout before."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(own_stdout()))
