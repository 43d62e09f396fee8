"""Dockerfiles, read as far as tests ask: stages, their bases and instructions."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import ROOT


@dataclass
class Stage:
    base: str
    #: Instructions with their arguments, in order; continued lines are joined.
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    def words(self, instruction: str) -> list[str]:
        """The words of an ENTRYPOINT, CMD or HEALTHCHECK in JSON form."""
        return [str(word) for word in json.loads(re.search(r"\[.*\]", self.last(instruction)).group())]  # type: ignore[union-attr]

    def copies(self) -> list[tuple[list[str], str]]:
        """What is copied from the build context: sources, and where they go."""
        found = [rest.split() for rest in self.all("COPY") if not rest.startswith("--from")]
        return [(words[:-1], words[-1]) for words in found]

    def env(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in rest.split())


def stages(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, lines)):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = current = Stage(base)
        elif current:
            current.steps.append((instruction, rest.strip()))
    return found


API = stages(ROOT / "Dockerfile.api")
WORKER = stages(ROOT / "Dockerfile.worker")
#: What is run, by name.
IMAGES = {"api": API["api"], "keeper": WORKER["keeper"], "cpu": WORKER["cpu"], "gpu": WORKER["gpu"]}
