"""What vLLM makes of the reference's preset (deploy/presets/t4.env), by its own parser and configuration.

On its build for CPUs, which resolves a model's format, lengths and scheduling as the one for GPUs does, and knows
nothing of a card. ``make colab-check`` runs it (``python -m tests.models.reference``), and so does recite.py: importing
vLLM takes longer than all of this.
"""

from __future__ import annotations

import json
import os
from typing import Any

from deploy.memory import PRESET, REFERENCE, preset, reference
from inferq.settings import Settings


class _OnGpu:
    """The platform as a GPU worker sees it."""

    @staticmethod
    def is_cuda() -> bool:
        return True


def expected() -> dict[str, Any]:
    """Return what it should make of it; docs/t4.md reckons with the tokens of a step, which are vLLM's default."""
    settings, shape = preset(), reference()
    return {
        "dtype": "torch.float16",
        "quantization": "awq",
        "length": int(settings["MAX_MODEL_LEN"]),
        "sequences": int(settings["MAX_NUM_SEQS"]),
        "tokens of a step": 2048,
        "share of memory": float(settings["GPU_MEMORY_UTIL"]),
        "layers": shape.layers,
        "heads of the cache": shape.kv_heads,
        "numbers of a head": shape.head_dim,
        "misread": [],
    }


def resolved() -> dict[str, Any]:
    """Return what an engine on a T4 would be started with. The model's directory holds its configuration alone."""
    # Not above: who asks for expected() need not have vLLM.
    from vllm.engine.arg_utils import AsyncEngineArgs

    from workers import vllm_engine

    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    vllm_engine.current_platform = _OnGpu()
    settings = Settings(_env_file=PRESET).model_copy(update={"model_name": str(REFERENCE.parent)})
    options = vllm_engine.engine_options(settings)
    config = AsyncEngineArgs(**options, skip_tokenizer_init=True).create_engine_config()
    model = config.model_config
    return {
        "dtype": str(model.dtype),
        "quantization": model.quantization,
        "length": model.max_model_len,
        "sequences": config.scheduler_config.max_num_seqs,
        "tokens of a step": config.scheduler_config.max_num_batched_tokens,
        "share of memory": config.cache_config.gpu_memory_utilization,
        "layers": model.hf_config.num_hidden_layers,
        "heads of the cache": model.get_total_num_kv_heads(),
        "numbers of a head": model.get_head_size(),
        "misread": _misread(options),
    }


def _misread(options: dict[str, Any]) -> list[str]:
    """Return which of them vLLM's own command line understands otherwise; it refuses what it does not know."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        written = json.dumps(value) if isinstance(value, dict) else str(value)
        words += [flag] if value is True else [flag, written]
    parsed = AsyncEngineArgs.from_cli_args(AsyncEngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args(words))
    return [name for name, value in options.items() if not _means(getattr(parsed, name), value)]


def _means(parsed: Any, value: Any) -> bool:
    if isinstance(value, dict):  # a configuration of its own, as the command line reads it
        return all((parsed[key] if isinstance(parsed, dict) else getattr(parsed, key)) == value[key] for key in value)
    return bool(parsed == value)


if __name__ == "__main__":
    made, wanted = resolved(), expected()
    for what in wanted:
        print(f"{what:20} {made[what]}" + ("" if made[what] == wanted[what] else f"   should be {wanted[what]}"))
    raise SystemExit(made != wanted)
