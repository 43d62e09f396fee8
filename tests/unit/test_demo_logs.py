"""What is left of a demo: nothing when it went well or was interrupted, its logs when it failed."""

from pathlib import Path

import pytest

from deploy.local.demo import DemoFailed, logs
from deploy.local.supervisor import PieceFailed, Stopped


@pytest.mark.parametrize("failure", [PieceFailed, DemoFailed])
def test_logs_of_a_demo_that_fails_are_kept(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(failure), logs():
        raise failure("it failed")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("end", [None, Stopped, KeyboardInterrupt])
def test_otherwise_nothing_is_left(
    end: type[BaseException] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if end:
        with pytest.raises(end), logs():
            raise end
    else:
        with logs() as home:
            assert home.is_dir()
    assert not list(tmp_path.iterdir())
