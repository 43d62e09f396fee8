"""Identifiers: time-ordered, never alike, not even after a fork."""

import subprocess
import sys
import threading
import uuid

from inferq.ids import is_id, new_id
from tests.processes import ROOT


def test_an_id_is_a_uuid_of_version_7_and_sorts_by_time() -> None:
    made = uuid.UUID(new_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert is_id(str(made))
    assert not is_id("nonsense")


def test_no_two_are_alike_in_any_thread() -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([new_id() for _ in range(2000)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16_000


_FORKS = """
import os
from inferq.ids import new_id
new_id()
child = os.fork()
os.write(1, new_id()[15:].encode() + b"\\n")  # the random part; print() may write in two steps
if child:
    os.waitpid(child, 0)
"""


def test_a_forked_process_does_not_repeat_its_parent_s() -> None:
    said = subprocess.run([sys.executable, "-c", _FORKS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    first, second = said.split()
    assert first != second
