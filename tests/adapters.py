"""LoRA adapters of the demo model, as the peft library writes them."""

import json
from pathlib import Path

from tests.processes import ROOT

BASE = "models/demo-mistral"
RANK = 4


def write_adapter(directory: Path, scale: float) -> None:
    """Write an adapter with random weights; with a ``scale`` of zero it adds nothing to its base."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((ROOT / BASE / "config.json").read_text())
    hidden, heads, kept = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or hidden // heads
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for name, size in (("q_proj", heads * head), ("v_proj", kept * head)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(RANK, hidden, generator=generator)
            weights[f"{prefix}.lora_B.weight"] = torch.randn(size, RANK, generator=generator) * scale
    directory.mkdir()
    save_file(weights, directory / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "base_model_name_or_path": BASE,
    }
    (directory / "adapter_config.json").write_text(json.dumps(said))
