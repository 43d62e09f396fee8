"""When an engine counts as hung."""

from typing import Any, cast

from workers.progress import Progress


class Written:
    """As much of an engine as Progress looks at."""

    def __init__(self) -> None:
        self.tokens: dict[str, int] = {}

    def written(self) -> dict[str, int]:
        return dict(self.tokens)


def test_only_an_engine_with_runs_and_no_new_tokens_is_stalled() -> None:
    engine, now = Written(), [0.0]
    progress = Progress(cast(Any, engine), 10.0, clock=lambda: now[0])

    def after(seconds: float, **tokens: int) -> bool:
        now[0] += seconds
        engine.tokens = tokens
        return progress.stalled()

    assert not after(100), "idle"
    assert not after(100, a=0), "just begun"
    assert not after(9, a=0)
    assert not after(9, a=1), "a token"
    assert not after(9, a=1, b=0), "a new run"
    assert not after(10, a=1, b=0)
    assert after(0.1, a=1, b=0)
    assert not after(0, b=0), "one has ended"
