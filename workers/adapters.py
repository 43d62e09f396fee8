"""LoRA adapters beside their base: what room vLLM must make for them. Known before vLLM, slow to import, is loaded."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from inferq.catalogue import Model
from inferq.errors import ConfigurationError

#: Ranks for which vLLM makes room; an adapter takes the next higher one.
_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)


def adapter_options(adapters: Sequence[Model]) -> dict[str, Any]:
    """Return what makes room for adapters: all in memory at once, and the highest rank among them.

    Raises ConfigurationError when a directory holds no adapter.
    """
    if not adapters:
        return {}
    ranks = []
    for adapter in adapters:
        try:
            ranks.append(int(json.loads(Path(adapter.adapter, "adapter_config.json").read_text())["r"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigurationError(
                f"MODELS: {adapter.adapter} holds no LoRA adapter (adapter_config.json with r)"
            ) from None
    rank = next((rank for rank in _RANKS if rank >= max(ranks)), None)
    if rank is None:
        raise ConfigurationError(f"MODELS: vLLM serves adapters up to rank {_RANKS[-1]}, not {max(ranks)}")
    return {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": rank}
