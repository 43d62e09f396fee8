"""What a worker asks of an engine, whichever it is."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from inferq.requests import GenerationRequest
from inferq.run_store import Completion
from inferq.settings import Settings
from workers.adapters import adapter_options


class Engine(Protocol):
    """A warm engine that many threads use at once."""

    #: Runs it can hold together; the worker offers that many slots.
    slots: int
    #: Whether its model computes on the processor's cores, which then serve everything else only at its cost.
    takes_cores: bool

    def start(self) -> None:
        """Load, warm up, and return when ready; raises EngineDead when it cannot be made ready."""

    def generate(self, run_id: str, request: GenerationRequest, salt: str) -> Completion:
        """Produce a completion; blocks its thread. ``salt`` keeps tenants' prefix caches apart.

        Raises RequestFailed (this request only), RunAborted (after the engine has freed it), EngineDead, or EngineGone
        when the engine had died before this run was in it.
        """

    def abort(self, run_id: str) -> None:
        """Tell the engine to stop a run; its ``generate`` raises RunAborted once it is freed. Unknown ids are fine."""

    def abort_all(self) -> None:
        """Abort every run the engine has."""

    def written(self) -> dict[str, int]:
        """Return how many tokens each running run has so far."""

    def texts(self, run_ids: Iterable[str]) -> dict[str, str]:
        """Return what running runs have written so far: of each a beginning of its text, whatever comes of it.

        Runs the engine does not have are left out.
        """

    @property
    def dead(self) -> bool:
        """Whether the engine can serve no more."""

    def kill(self) -> None:
        """End a hung engine at once: it is dead afterwards, and what is in it raises EngineDead."""

    def stop(self) -> None:
        """End the engine and all processes it started."""


def load_engine(settings: Settings) -> Engine:
    """Return the engine that ``ENGINE`` names, not yet started.

    Raises ConfigurationError when a directory of ``MODELS`` holds no adapter.
    """
    # Imported here: the simulated engine must work where vLLM is not installed.
    if settings.engine == "simulated":
        from workers.simulated_engine import SimulatedEngine
        from workers.timing import timing_of

        return SimulatedEngine(slots=settings.max_num_seqs, timing=timing_of(settings))
    adapter_options(settings.catalogue.adapters(settings.engine_queue))  # what is wrong is said at once
    _make_vllm_log(settings)
    from workers.vllm_engine import VllmEngine

    return VllmEngine(settings)


def _make_vllm_log(settings: Settings) -> None:
    """Have vLLM and the processes it starts log as the rest does. vLLM reads it when it is imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", settings.log_level.upper())  # noqa: TID251  # vLLM's own switches
    if settings.log_format == "json":
        # The `celery` command puts the directory it runs in on the path, imports us, and takes it off again; a process
        # that is started anew gets the path of its parent. Without an entry of our own, which stays, it could not
        # import the formatter, and the engine would not start.
        sys.path.append(str(Path(__file__).resolve().parents[1]))
        file = Path(__file__).with_name("vllm_logging.json")
        os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(file))  # noqa: TID251
