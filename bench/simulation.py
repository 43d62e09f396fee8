"""The simulated engine against the real one: calibrated from a few runs, then other loads predicted and measured."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.contestants import Direct
from bench.load import median
from bench.processes import Children
from bench.stack import make_settings
from inferq.requests import GenerationRequest
from workers.simulated_engine import SimulatedEngine
from workers.timing import Timing

#: Loads of the calibration: clients, requests, prompt characters, tokens. The last one mostly reads.
CALIBRATION = ((1, 4, 40, 64), (8, 48, 40, 64), (32, 192, 40, 64), (1, 12, 2400, 1))
#: Loads that are predicted: other numbers of clients, other lengths.
PREDICTED = ((4, 24, 40, 48), (16, 96, 200, 64), (48, 288, 40, 32), (24, 96, 800, 40))


@dataclass(frozen=True, kw_only=True)
class Load:
    """One closed loop: clients, requests, characters of each prompt, tokens of each answer."""

    clients: int
    requests: int
    characters: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """Seconds until a load was done, measured on the real engine and predicted by the simulated one."""

    load: Load
    measured_s: float
    predicted_s: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted_s / self.measured_s


def measure_simulation(children: Children, rounds: int, calibration: Path) -> tuple[Timing, list[Row]]:
    """Measure all loads in turns, calibrate with some of them, write the calibration to a file, and predict the others.

    In turns: the machine's own speed drifts, and must not do so between calibrating and predicting.
    """
    direct = Direct(children, make_settings())
    numbers = count()
    _run(direct, Load(clients=16, requests=64, characters=40, tokens=64), numbers)  # warm up
    taken: dict[tuple[int, int, int, int], list[float]] = {load: [] for load in (*CALIBRATION, *PREDICTED)}
    for _ in range(rounds):
        for values, seconds in taken.items():
            seconds.append(_run(direct, Load(**_named(values)), numbers))
    direct.rest()
    timing = fit({values: median(taken[values]) for values in CALIBRATION})
    timing.write(calibration)
    return timing, [
        Row(load=load, measured_s=median(taken[values]), predicted_s=predict(timing, load, numbers))
        for values, load in ((values, Load(**_named(values))) for values in PREDICTED)
    ]


def fit(seconds: dict[tuple[int, int, int, int], float]) -> Timing:
    """Return the timing whose steps take what the calibration took: a line through the decoding loads, then what a
    prompt token adds to the reading one.
    """
    points = []
    for (clients, requests, _, tokens), taken in seconds.items():
        if tokens > 1:
            points.append((clients, taken / (requests / clients * tokens)))
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    base = max(0.0, mean_y - slope * mean_x)
    slope = max(0.0, slope)
    ((_, requests, characters, _), taken) = next(item for item in seconds.items() if item[0][3] == 1)
    read = max(0.0, taken / requests - base - slope) / (characters / 4)
    return Timing(base_s=base, sequence_s=slope, prompt_token_s=read)


def predict(timing: Timing, load: Load, numbers: "count[int]") -> float:
    """Return the seconds the simulated engine takes for a load, in real time."""
    engine = SimulatedEngine(slots=64, timing=timing)
    engine.start()
    prompts = iter(_prompts(load, numbers, f" simulate:words={load.tokens}"))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                prompt = next(prompts, None)
            if prompt is None:
                return
            engine.generate(prompt, GenerationRequest(prompt=prompt, max_tokens=load.tokens), "")

    threads = [threading.Thread(target=client) for _ in range(load.clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - began
    engine.stop()
    return taken


def _run(direct: Direct, load: Load, numbers: "count[int]") -> float:
    bodies = [{"prompt": prompt, "max_tokens": load.tokens} for prompt in _prompts(load, numbers)]
    return direct.measure(bodies, load.clients).seconds


def _prompts(load: Load, numbers: "count[int]", ending: str = "") -> Sequence[str]:
    """Return prompts of that length that no prefix cache knows."""
    made = []
    for _ in range(load.requests):
        text = f"#{next(numbers)} What happens when a worker dies? "
        made.append((text * (load.characters // len(text) + 1))[: load.characters - len(ending)] + ending)
    return made


def _named(values: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(("clients", "requests", "characters", "tokens"), values, strict=True))
