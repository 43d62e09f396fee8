"""A calibration finds the timing that an engine has, and the simulated engine then keeps to it."""

from itertools import count

import pytest

from bench.simulation import CALIBRATION, Load, fit, predict
from workers.timing import Timing


def test_a_calibration_finds_the_timing_of_an_engine() -> None:
    real = Timing(base_s=0.002, sequence_s=0.0001, prompt_token_s=0.00005)
    seconds = {
        load: requests / clients * tokens * real.step_s(clients, 0)
        if tokens > 1
        else requests * real.step_s(1, characters // 4)
        for load in CALIBRATION
        for clients, requests, characters, tokens in [load]
    }
    found = fit(seconds)
    assert found.base_s == pytest.approx(real.base_s, rel=0.01)
    assert found.sequence_s == pytest.approx(real.sequence_s, rel=0.01)
    assert found.prompt_token_s == pytest.approx(real.prompt_token_s, rel=0.01)


def test_a_prediction_takes_as_long_as_the_timing_says_at_least() -> None:
    load = Load(clients=2, requests=4, characters=40, tokens=5)
    assert predict(Timing(base_s=0.005), load, count()) >= 2 * 5 * 0.005
