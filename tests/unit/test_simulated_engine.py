"""The simulated engine keeps to its timing model: steps, prompts read in chunks, slots; and says what is no model."""

import threading
from pathlib import Path

import pytest

from inferq.errors import ConfigurationError
from inferq.requests import GenerationRequest
from tests.conftest import make_settings
from workers.simulated_engine import SimulatedEngine, simulated_words
from workers.timing import PRESETS, Timing, timing_of


class Clock:
    """Time that passes only when the engine sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.steps += 1

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(engine: SimulatedEngine, *prompts: str) -> list[int]:
    """Ask all at once; the engine starts when everybody has asked. Returns milliseconds to each first token."""
    ttft: dict[int, int] = {}

    def ask(number: int, prompt: str) -> None:
        ttft[number] = engine.generate(f"r{number}", GenerationRequest(prompt=prompt, max_tokens=100), "").ttft_ms

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(prompts)]
    for number, thread in enumerate(threads):
        thread.start()
        while len(engine.written()) <= number:
            pass
    engine.start()
    for thread in threads:
        thread.join()
    engine.stop()
    return [ttft[number] for number in range(len(prompts))]


def test_a_step_costs_what_the_model_says(clock: Clock) -> None:
    engine = SimulatedEngine(
        slots=8, timing=Timing(base_s=1.0, sequence_s=0.1, prompt_token_s=0.01), clock=clock, sleep=clock.sleep
    )
    run(engine, "simulate:words=3", "simulate:words=3")
    # Two prompts of four tokens are read in the first step; three steps give both a token.
    assert clock.now == pytest.approx(3 * (1.0 + 2 * 0.1) + 8 * 0.01)


def test_a_long_prompt_is_read_in_chunks_and_its_neighbours_go_on(clock: Clock) -> None:
    engine = SimulatedEngine(slots=8, timing=Timing(base_s=1.0, prompt_tokens=10), clock=clock, sleep=clock.sleep)
    first = run(engine, "x" * 80 + " simulate:words=1", "simulate:words=2")
    assert [round(ms / 1000) for ms in first] == [3, 3], (
        "24 tokens in steps of ten; the other prompt fits into the third"
    )
    assert clock.steps == 4


def test_what_a_stopped_process_has_missed_is_not_made_up_for(clock: Clock) -> None:
    def stopped_once(seconds: float) -> None:
        clock.sleep(seconds + (100.0 if clock.steps == 2 else 0.0))

    engine = SimulatedEngine(slots=1, timing=Timing(base_s=1.0), clock=clock, sleep=stopped_once)
    run(engine, "simulate:words=20")
    assert clock.now == pytest.approx(120, abs=1), "twenty steps beside the time it stood still"


def test_more_than_there_are_slots_wait(clock: Clock) -> None:
    engine = SimulatedEngine(slots=1, timing=Timing(base_s=1.0), clock=clock, sleep=clock.sleep)
    assert run(engine, "simulate:words=5", "simulate:words=5") == [1000, 6000]


def test_the_answer_is_as_long_as_it_is_told() -> None:
    assert len(simulated_words("simulate:words=70 please", 0, 1000)) == 70
    assert len(simulated_words("simulate:words=70 please", 0, 10)) == 10
    assert 8 <= len(simulated_words("hello", 0, 1000)) <= 64


def test_timing_by_name_and_by_file(tmp_path: Path) -> None:
    settings = make_settings("redis://127.0.0.1:1", simulated_step=0.25)
    assert timing_of(settings) == Timing(base_s=0.25)
    named = settings.model_copy(update={"simulated_timing": "t4-mistral-7b-awq"})
    t4 = timing_of(named)
    assert t4 is PRESETS["t4-mistral-7b-awq"]
    assert 1 / t4.step_s(1, 0) == pytest.approx(34, rel=0.02), "tokens a second alone, as cited"
    file = tmp_path / "mine.json"
    t4.write(file)
    assert timing_of(settings.model_copy(update={"simulated_timing": str(file)})) == t4


@pytest.mark.parametrize("text", ["{", "[]", '{"base_s": "1"}', '{"base_s": -1}', '{"base_s": 1, "prompt_tokens": 0}'])
def test_what_is_no_timing_is_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    settings = make_settings("redis://127.0.0.1:1", simulated_timing=str(file))
    with pytest.raises(ConfigurationError, match="SIMULATED_TIMING: "):
        timing_of(settings)
    with pytest.raises(ConfigurationError, match="must be constant, t4-mistral-7b-awq, or the path"):
        timing_of(settings.model_copy(update={"simulated_timing": "warp"}))
