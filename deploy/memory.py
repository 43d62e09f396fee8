"""What a model takes of a GPU's memory, reckoned for docs/t4.md: ``python -m deploy.memory``."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from deploy.local.child import ROOT

PAGE: Final = ROOT / "docs" / "t4.md"
PRESET: Final = ROOT / "deploy" / "presets" / "t4.env"
#: The published configuration of the reference model, as far as it says anything of sizes.
REFERENCE: Final = ROOT / "deploy" / "presets" / "mistral-7b-instruct-v0.2-awq" / "config.json"
#: Where the page has what this module writes.
BEGIN: Final = "<!-- from here: python -m deploy.memory -->\n"
END: Final = "<!-- to here -->\n"

GIB: Final = 2**30
#: Bytes that CUDA shows of a T4: 16 GB less what error correction and the driver keep. Drivers differ a little.
T4_BYTES: Final = int(14.56 * GIB)
#: Bytes for all but weights and cache, an assumption: CUDA's context, activations of a step, graphs. vLLM measures it.
REST_GIB: Final = (1.0, 1.5)
#: Shares of the GPU that are compared: the preset's, and one for a GPU that nobody else uses.
SHARES: Final = (0.85, 0.90)
#: Tokens for which vLLM reserves cache at once.
BLOCK: Final = 16
#: Bytes of a number in float16: activations, embeddings, norms, scales, cache.
HALF: Final = 2


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a decoder with grouped attention and a gated MLP, in AWQ's format or in float16."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    #: Bits of a weight, and weights that share a scale and a zero point; None: float16.
    bits: int | None
    group: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a checkpoint's ``config.json``."""
        awq = config.get("quantization_config") or {}
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            heads=heads,
            kv_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=config["tie_word_embeddings"],
            bits=awq.get("bits"),
            group=awq.get("group_size", 1),
        )

    @property
    def linear(self) -> int:
        """Weights in the linear maps of all layers: queries and output, keys and values, the MLP's three."""
        own, shared = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * (2 * self.hidden * own + 2 * self.hidden * shared + 3 * self.hidden * self.inner)

    @property
    def linear_bytes(self) -> int:
        """Bytes of these: each group has a scale in float16, and a zero point of as many bits as a weight."""
        if self.bits is None:
            return self.linear * HALF
        groups = self.linear // self.group
        return self.linear * self.bits // 8 + groups * HALF + groups * self.bits // 8

    @property
    def plain_bytes(self) -> int:
        """Bytes of what AWQ leaves alone: embeddings, the way back to words, norms."""
        words = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return (words + (2 * self.layers + 1) * self.hidden) * HALF

    @property
    def weight_bytes(self) -> int:
        """Bytes of the checkpoint's tensors."""
        return self.linear_bytes + self.plain_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes of cache for one token: a key and a value in each layer for each of their heads."""
        return 2 * self.layers * self.kv_heads * self.head_dim * HALF


def cache_tokens(shape: Shape, share: float, rest_gib: float) -> int:
    """Return for how many tokens a T4 has cache when vLLM may take ``share`` of it."""
    left = share * T4_BYTES - shape.weight_bytes - rest_gib * GIB
    return int(left / shape.token_bytes) // BLOCK * BLOCK


def preset(path: Path = PRESET) -> dict[str, str]:
    """Return what a file of settings sets, by name."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def reference() -> Shape:
    """Return the shape of the reference model."""
    return Shape.of(json.loads(REFERENCE.read_text()))


def tables() -> str:
    """Return the part of the page that is computed."""
    shape, settings = reference(), preset()
    length, sequences = int(settings["MAX_MODEL_LEN"]), int(settings["MAX_NUM_SEQS"])
    parts = (_weights(shape), _cache(shape, length, sequences), _fits(shape, length, sequences))
    return "\n".join("".join(line + "\n" for line in part) for part in parts)


def _weights(shape: Shape) -> Iterator[str]:
    packed = shape.linear * (shape.bits or 8 * HALF) // 8
    groups = f"{shape.linear // shape.group:,} groups of {shape.group}, 2 bytes and {shape.bits} bits each"
    together = f"**{shape.weight_bytes:,}**, {shape.weight_bytes / GIB:.2f} GiB"
    yield "| weights | how reckoned | bytes |"
    yield "|---|---|---|"
    yield f"| linear maps of {shape.layers} layers | {shape.linear:,} weights of {shape.bits} bits | {packed:,} |"
    yield f"| their scales and zero points | {groups} | {shape.linear_bytes - packed:,} |"
    yield f"| embeddings, output, norms | {shape.plain_bytes // HALF:,} numbers in float16 | {shape.plain_bytes:,} |"
    yield f"| together | | {together} |"


def _cache(shape: Shape, length: int, sequences: int) -> Iterator[str]:
    one = f"2 · {shape.layers} layers · {shape.kv_heads} heads · {shape.head_dim} · {HALF} bytes"
    yield "| cache | how reckoned | |"
    yield "|---|---|---|"
    yield f"| a token | {one} | {shape.token_bytes / 1024:.0f} KiB |"
    yield f"| a sequence | `MAX_MODEL_LEN`, {length:,} tokens | {length * shape.token_bytes / GIB:.2f} GiB |"
    yield f"| all | `MAX_NUM_SEQS`, {sequences} of them | {sequences * length * shape.token_bytes / GIB:.2f} GiB |"


def _fits(shape: Shape, length: int, sequences: int) -> Iterator[str]:
    yield (
        f"| `GPU_MEMORY_UTIL` | of {T4_BYTES / GIB:.2f} GiB | neither weights nor cache | cache | tokens in it "
        f"| sequences of {length:,} | tokens each of {sequences} |"
    )
    yield "|---|---|---|---|---|---|---|"
    for share in SHARES:
        for rest in REST_GIB:
            tokens = cache_tokens(shape, share, rest)
            yield (
                f"| {share:.2f} | {share * T4_BYTES / GIB:.2f} GiB | {rest:.1f} GiB "
                f"| {tokens * shape.token_bytes / GIB:.2f} GiB | {tokens:,} | {tokens / length:.1f} "
                f"| {tokens // sequences:,} |"
            )


def page(text: str) -> str:
    """Return the page with its computed part anew."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + tables() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    sys.stdout.write(tables())
