"""When a worker tells what its runs have written: soon at first, then the more runs are told the less often each."""

from collections.abc import Iterable
from contextlib import ExitStack

import pytest

from tests.world import World
from workers.simulated_engine import SimulatedEngine
from workers.timing import Timing
from workers.token_streams import LONGEST_S, LOOK_S, PIECE_ON_CORES_S, PIECE_S, TokenStreams


class Writing(SimulatedEngine):
    """An engine whose runs have always written another word since they were looked at last."""

    words = 0

    def __init__(self, slots: int, *, takes_cores: bool) -> None:
        super().__init__(slots=slots, timing=Timing(base_s=0.001))
        self.takes_cores = takes_cores

    def texts(self, run_ids: Iterable[str]) -> dict[str, str]:
        self.words += 1
        return dict.fromkeys(run_ids, "word " * self.words)


@pytest.mark.parametrize("takes_cores", [True, False])
@pytest.mark.parametrize("crowd", [1, 8, 64, 100])
def test_each_run_is_told_less_often_in_a_crowd(world: World, crowd: int, *, takes_cores: bool) -> None:
    now = 1000.0
    told: list[int] = []
    engine = Writing(crowd, takes_cores=takes_cores)
    streams = TokenStreams(store=world.worker, engine=engine, counted=told.append, clock=lambda: now)
    with ExitStack() as running:
        for _ in range(crowd):
            world.submit(stream=True)
            running.enter_context(streams.of(world.claim()))
        streams.tell()
        assert told == [crowd], "nobody waits for a first piece"
        wait = min(crowd * (PIECE_ON_CORES_S if takes_cores else PIECE_S), LONGEST_S)
        now += wait - 0.001
        streams.tell()
        assert told == [crowd], "not due yet"
        now += 0.002
        streams.tell()
        assert told == [crowd, crowd]
    now += 10
    streams.tell()
    assert told == [crowd, crowd], "a run that has ended is told no more"


def test_a_crowd_is_told_twice_a_second_at_least() -> None:
    assert LONGEST_S <= 0.5
    assert PIECE_ON_CORES_S * 4 <= LOOK_S, "a handful of followers hear of each look"
    assert PIECE_S * 64 <= 0.05, "beside a GPU all do every few tens of milliseconds"
