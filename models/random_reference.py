"""Write a checkpoint of the reference model's shape with random weights, to measure a GPU that reaches no model hub.

Sizes, types and AWQ's format are those of TheBloke/Mistral-7B-Instruct-v0.2-AWQ, so weights, cache and every kernel
cost what they cost there. Such a model answers with nonsense: its 32,000 tokens are those of the demo model and made-up
words.

    python models/random_reference.py --out /tmp/random-reference

Needs torch and safetensors, 4.2 GB of disk; takes seconds where torch finds a GPU, else a minute.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / "deploy" / "presets" / "mistral-7b-instruct-v0.2-awq" / "config.json"
TOKENIZER = HERE / "demo-mistral"

#: A row of eight 4-bit zero points, all of them 8: weights are spread evenly around nothing.
ZEROS = -0x77777778  # 0x88888888 as a signed number
#: Of a weight, so that the sums over a layer's inputs stay in float16's range.
STEP = 0.004
DEVIATION = 0.02
COPIED = ("generation_config.json", "special_tokens_map.json", "tokenizer_config.json")


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of the linear maps of one layer by name."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shared = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, shared),
        "self_attn.v_proj": (hidden, shared),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }


def random_weights(config: dict[str, Any], device: str) -> dict[str, torch.Tensor]:
    """Return all tensors of the checkpoint by name, the same for the same ``config`` and ``device``."""
    dice = torch.Generator(device).manual_seed(1)
    per_int, group = 32 // config["quantization_config"]["bits"], config["quantization_config"]["group_size"]
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]

    def words() -> torch.Tensor:
        return (torch.randn(vocabulary, hidden, generator=dice, device=device) * DEVIATION).half().cpu()

    def norm() -> torch.Tensor:
        return torch.ones(hidden, dtype=torch.float16)

    weights = {"model.embed_tokens.weight": words(), "model.norm.weight": norm()}
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = words()
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        weights |= {f"{layer}.input_layernorm.weight": norm(), f"{layer}.post_attention_layernorm.weight": norm()}
        for name, (inputs, outputs) in shapes(config).items():
            packed = torch.randint(
                -(2**31), 2**31, (inputs, outputs // per_int), dtype=torch.int32, generator=dice, device=device
            )
            weights[f"{layer}.{name}.qweight"] = packed.cpu()
            weights[f"{layer}.{name}.qzeros"] = torch.full(
                (inputs // group, outputs // per_int), ZEROS, dtype=torch.int32
            )
            weights[f"{layer}.{name}.scales"] = torch.full((inputs // group, outputs), STEP, dtype=torch.float16)
    return weights


def tokenizer(vocabulary: int) -> dict[str, Any]:
    """Return the demo model's tokenizer with as many words more as ``vocabulary`` has room for."""
    found: dict[str, Any] = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    known: dict[str, int] = found["model"]["vocab"]
    known |= {f"Ġw{number}": number for number in range(len(known), vocabulary)}  # Ġ: a blank, in byte-level BPE
    return found


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write the reference model's shape with random weights.")
    parser.add_argument("--out", type=Path, required=True, help="where to write it")
    parser.add_argument("--config", type=Path, default=CONFIG, help="sizes, as in a checkpoint's config.json")
    return parser.parse_args()


def main() -> int:
    """Write weights, configuration and tokenizer."""
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = json.loads(arguments.config.read_text(encoding="utf-8")) | {"bos_token_id": 1, "eos_token_id": 2}
    weights = random_weights(config, "cuda" if torch.cuda.is_available() else "cpu")
    target = arguments.out / "model.safetensors"
    save_file(weights, target, metadata={"format": "pt"})
    target.chmod(0o644)  # written 0600, which an image that runs as another user cannot read
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    words = json.dumps(tokenizer(config["vocab_size"]), ensure_ascii=False)
    (arguments.out / "tokenizer.json").write_text(words, encoding="utf-8")
    for name in COPIED:
        shutil.copyfile(TOKENIZER / name, arguments.out / name)
    print(f"{sum(one.nbytes for one in weights.values()):,} bytes of weights written to {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
