"""The examples of docs/client.md run as they stand."""

import re
import subprocess
import sys

from tests.command import environment
from tests.processes import ROOT
from tests.service import Service

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 6


def test_the_examples_run(service: Service) -> None:
    # One process: each example alone would mostly wait for its imports.
    code = "\n".join(f"exec({example!r}, {{'__name__': '__main__'}})" for example in EXAMPLES)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(service.url, service.key),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage(prompt_tokens=" in done.stdout
    assert "Ended(job=" in done.stdout
