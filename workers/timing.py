"""How long a step of continuous batching takes: the timing model of the simulated engine (docs/simulated-engine.md)."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from inferq.errors import ConfigurationError
from inferq.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One step reads some prompt tokens and gives every running sequence whose prompt is read one token.

    It takes ``base_s`` (weights are read, kernels started) plus ``sequence_s`` for each sequence that gains a token and
    ``prompt_token_s`` for each prompt token read; of those a step reads at most ``prompt_tokens`` (chunked prefill).
    """

    base_s: float
    sequence_s: float = 0.0
    prompt_token_s: float = 0.0
    prompt_tokens: int = 2048

    def step_s(self, sequences: int, prompt_tokens: int) -> float:
        """Return the seconds of a step."""
        return self.base_s + self.sequence_s * sequences + self.prompt_token_s * prompt_tokens

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a calibration that ``make bench`` wrote; raises ConfigurationError for a file that is none."""
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(f"SIMULATED_TIMING: {path} is no calibration ({type(error).__name__})") from None
        if not all(isinstance(value, int | float) and value >= 0 for value in asdict(found).values()):
            raise ConfigurationError(f"SIMULATED_TIMING: {path} must hold numbers of 0 or more")
        if found.prompt_tokens < 1:
            raise ConfigurationError(f"SIMULATED_TIMING: {path} must let a step read at least one prompt token")
        return found

    def write(self, path: Path) -> None:
        """Write a calibration for ``SIMULATED_TIMING``."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


#: Engines that somebody has measured. Sources and arithmetic: docs/simulated-engine.md.
PRESETS: Final = {
    # Mistral-7B AWQ on a T4: 34 tokens/s alone and 400 prompt tokens/s, as AutoAWQ's users measured in 2023 with its
    # GEMM kernels; a sequence more costs its arithmetic and its KV cache. Marlin kernels are faster: not measured.
    "t4-mistral-7b-awq": Timing(base_s=0.028, sequence_s=0.0014, prompt_token_s=0.0025, prompt_tokens=2048),
}


def timing_of(settings: Settings) -> Timing:
    """Return the model that ``SIMULATED_TIMING`` names; raises ConfigurationError when it names none."""
    name = settings.simulated_timing
    if name == "constant":
        return Timing(base_s=settings.simulated_step)
    if name in PRESETS:
        return PRESETS[name]
    if name.endswith(".json"):
        return Timing.read(Path(name))
    known = ", ".join(["constant", *PRESETS])
    raise ConfigurationError(f"SIMULATED_TIMING: must be {known}, or the path of a calibration that ends in .json")
