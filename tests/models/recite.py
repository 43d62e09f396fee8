"""Let one checkpoint answer prompts in a real vLLM engine: a script, so that the engine dies with it.

    python tests/models/recite.py CHECKPOINT PROMPTS_JSON ANSWERS_JSON DTYPE

PROMPTS_JSON is a list of prompts. ANSWERS_JSON is written: for "raw" and "chat" a list of [text, finish
reason] in the order of the prompts, "quantization" as the engine resolved it (null for none), and "reference": what
vLLM makes of the reference's preset.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from vllm import LLM, RequestOutput, SamplingParams

from tests.models.reference import resolved


def answers(outputs: list[RequestOutput]) -> list[tuple[str, str | None]]:
    """(text, finish reason) of each request, in the order asked."""
    return [(output.outputs[0].text, output.outputs[0].finish_reason) for output in outputs]


def main(checkpoint: str, prompts_path: str, answers_path: str, dtype: str) -> None:
    """Ask everything twice, raw and as a chat, greedily."""
    prompts: list[str] = json.loads(Path(prompts_path).read_text(encoding="utf-8"))
    started = time.monotonic()
    llm = LLM(model=checkpoint, dtype=dtype, enforce_eager=True, max_model_len=1024, max_num_seqs=16, seed=0)
    ready = time.monotonic()
    greedy = SamplingParams(temperature=0.0, max_tokens=256)
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    try:
        found = {
            "quantization": llm.llm_engine.model_config.quantization,
            "raw": answers(llm.generate(prompts, greedy, use_tqdm=False)),
            "chat": answers(llm.chat(chats, greedy, use_tqdm=False)),
        }
    finally:
        llm.llm_engine.engine_core.shutdown()
    found["reference"] = resolved()
    Path(answers_path).write_text(json.dumps(found), encoding="utf-8")
    spent = time.monotonic() - ready
    print(f"engine ready after {ready - started:.1f} s, {2 * len(prompts)} answers in {spent:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
