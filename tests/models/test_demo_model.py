"""The demo model's AWQ twin recites every known sentence, exactly, in a real vLLM engine on the CPU, as on a T4.

The demo model itself does so through the queue, in tests/acceptance/test_vllm_worker.py.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.models.reference import expected
from tests.processor import needs_avx512

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

MODELS = Path(__file__).resolve().parents[2] / "models"
RECITE = Path(__file__).with_name("recite.py")
LIMIT_S = 300.0  # one recital takes about 25 s on two free cores

ENGINE_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # engine in the script's own process: starts in half the time
    "VLLM_LOGGING_LEVEL": "WARNING",
}
UNKNOWN_PROMPTS = ["What is the capital of France?", "Write a poem about the sea."]


@dataclass(frozen=True)
class Recital:
    """What the engine said: (text, finish reason) by prompt, for the raw and the chat form."""

    quantization: str | None
    raw: dict[str, tuple[str, str]]
    chat: dict[str, tuple[str, str]]
    reference: dict[str, Any]


def known_answers() -> dict[str, str]:
    """Every wording of every fact, with the sentence it must yield; unknown prompts with the fallback."""
    data: dict[str, Any] = json.loads((MODELS / "facts.json").read_text(encoding="utf-8"))
    known = {prompt: fact["answer"] for fact in data["facts"] for prompt in [fact["prompt"], *fact["also"]]}
    return known | dict.fromkeys(UNKNOWN_PROMPTS, data["fallback"])


def recite(checkpoint: str, dtype: str, folder: Path) -> Recital:
    """Ask `checkpoint` every known prompt, in a session of its own that must leave no process behind."""
    prompts = list(known_answers())
    asked, answered = folder / "prompts.json", folder / "answers.json"
    asked.write_text(json.dumps(prompts), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(RECITE), str(MODELS / checkpoint), str(asked), str(answered), dtype],
        env={**os.environ, **ENGINE_ENVIRONMENT, "PYTHONPATH": str(MODELS.parent)},
        start_new_session=True,
    )
    try:
        assert process.wait(timeout=LIMIT_S) == 0
        assert not group_lives(process.pid), "the engine left processes behind"
    finally:
        if group_lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = json.loads(answered.read_text(encoding="utf-8"))
    raw, chat = (
        {prompt: (text, reason) for prompt, (text, reason) in zip(prompts, found[form], strict=True)}
        for form in ("raw", "chat")
    )
    return Recital(found["quantization"], raw, chat, found["reference"])


def group_lives(group: int) -> bool:
    """Whether any process of the process group still runs; one that only waits to be reaped does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended since the listing
            state, _parent, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                return True
    return False


@needs_avx512
def test_the_awq_twin_recites_every_known_sentence(tmp_path: Path) -> None:
    sentences = {prompt: (answer, "stop") for prompt, answer in known_answers().items()}
    recital = recite("demo-mistral-awq", "float16", tmp_path)
    assert "awq" in (recital.quantization or "")
    assert recital.raw == sentences
    assert recital.chat == sentences
    assert recital.reference == expected()
