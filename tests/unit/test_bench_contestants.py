"""Contestants of a measurement are given the model that was named, and a GPU between them."""

from typing import Any

import pytest

from bench import throughput
from bench.stack import engine_settings


class Started(Exception):
    """A contestant was given these settings."""


class Contestant:
    name = "inferq"

    def __init__(self, _children: Any, settings: Any) -> None:
        raise Started(settings.model_name, settings.gpu_memory_util)


@pytest.mark.parametrize(("only", "share"), [([], 0.85 / 4), (["inferq"], 0.85)])
def test_all_have_the_named_model_and_share_the_gpu(
    monkeypatch: pytest.MonkeyPatch, only: list[str], share: float
) -> None:
    monkeypatch.setattr(throughput, "Inferq", Contestant)
    children: Any = None
    with pytest.raises(Started) as started:
        throughput.measure_throughput(children, 1, [1], only, engine_settings("vllm", "some/model"))
    assert started.value.args == ("some/model", pytest.approx(share))
