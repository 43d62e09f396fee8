"""Write the AWQ twin of the demo model: the same weights at 4 bits, in AutoAWQ's GEMM format.

It exists so that the quantised path (what a T4 runs: AWQ weights of a 7B Mistral) is also run, end to end, on
a machine without a GPU. Weights are rounded to nearest, in groups of 64 inputs; AutoAWQ's search for
activation-aware scales is not needed for a model that was trained until it is sure, nor is its package.

    python models/quantize_awq.py --model models/demo-mistral --out models/demo-mistral-awq

Needs torch and safetensors; takes a second.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent

BITS = 4
LEVELS = 2**BITS - 1
GROUP_SIZE = 64  # inputs that share a scale and a zero point
PACK = 32 // BITS  # values in one int32
PACK_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble i of an int32 holds column PACK_ORDER[i] of its eight
COPIED = ("generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Round `weight` [out, in] to 4 bits a value, each group of 64 inputs with its own scale and zero point.

    Returns values [out, in] and zeros [out, groups], both whole numbers 0..15 in int32, and scales
    [out, groups] in float16. The weight is about `(value - zero) * scale`.
    """
    outputs, inputs = weight.shape
    if inputs % GROUP_SIZE or outputs % PACK:
        raise ValueError(f"cannot quantise {outputs} x {inputs}: needs multiples of {PACK} x {GROUP_SIZE}")
    groups = weight.float().reshape(outputs, inputs // GROUP_SIZE, GROUP_SIZE)
    # Zero must lie in each group's range, or its zero point would leave 0..15.
    low = groups.amin(dim=-1).clamp(max=0.0)
    high = groups.amax(dim=-1).clamp(min=0.0)
    scales = ((high - low).clamp(min=1e-5) / LEVELS).half()
    steps = scales.float()
    zeros = (-low / steps).round().clamp(0, LEVELS)
    values = (groups / steps.unsqueeze(-1)).round().add(zeros.unsqueeze(-1)).clamp(0, LEVELS)
    return values.reshape(outputs, inputs).int(), zeros.int(), scales


def dequantize(values: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Undo `quantize`, as far as rounding allows: float32 [out, in]."""
    centred = values - zeros.repeat_interleave(GROUP_SIZE, dim=1)
    return centred * scales.float().repeat_interleave(GROUP_SIZE, dim=1)


def pack(values: torch.Tensor) -> torch.Tensor:
    """Pack whole numbers 0..15, [rows, columns], into int32 [rows, columns / 8], in AWQ's column order."""
    rows, columns = values.shape
    eights = values.to(torch.int64).reshape(rows, columns // PACK, PACK)
    packed = torch.zeros(rows, columns // PACK, dtype=torch.int64)
    for nibble, column in enumerate(PACK_ORDER):
        packed |= eights[:, :, column] << (BITS * nibble)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)  # the same 32 bits, signed


def quantize_checkpoint(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replace the weight [out, in] of each linear layer; embedding and norms stay float16.

    In its place come qweight [in, out / 8], qzeros [groups, out / 8] and scales [groups, out].
    """
    quantized: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if not name.endswith("_proj.weight"):
            quantized[name] = weight
            continue
        layer = name.removesuffix(".weight")
        values, zeros, scales = quantize(weight)
        quantized[f"{layer}.qweight"] = pack(values.T)
        quantized[f"{layer}.qzeros"] = pack(zeros.T)
        quantized[f"{layer}.scales"] = scales.T.contiguous()
    return quantized


def quantization_config() -> dict[str, object]:
    """What config.json says, by which engines recognise the format."""
    return {
        "quant_method": "awq",
        "bits": BITS,
        "group_size": GROUP_SIZE,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    }


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write the 4-bit AWQ twin of the demo model.")
    parser.add_argument("--model", type=Path, default=HERE / "demo-mistral", help="what to quantise")
    parser.add_argument("--out", type=Path, default=HERE / "demo-mistral-awq", help="where to write it")
    return parser.parse_args()


def main() -> int:
    """Quantise the weights, say so in config.json, and copy the rest."""
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    weights = load_file(arguments.model / "model.safetensors")
    target = arguments.out / "model.safetensors"
    save_file(quantize_checkpoint(weights), target, metadata={"format": "pt"})
    target.chmod(0o644)  # written 0600, which an image that runs as another user cannot read
    config = json.loads((arguments.model / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = quantization_config()
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in COPIED:
        shutil.copyfile(arguments.model / name, arguments.out / name)
    print(f"written to {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
