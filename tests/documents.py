"""The code blocks of our documents, and which of them are run.

A block is fenced and names its language. ``sh`` and ``console`` blocks are run, unless a comment on the line before
says why not: ``<!-- not run: REASON -->``. ``<!-- run beside the rest -->`` says of a server that it goes on.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT

#: Whoever reads them types what they say. Changes and decisions tell of what was.
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for place in ("*.md", "docs/*.md", "client/*.md", "models/*.md", "deploy/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(place)
    if path.name not in ("CHANGELOG.md", "licences.md")
)
SHELL = ("sh", "console")
#: What nobody runs: data, pictures, and what programs say.
QUIET = ("text", "json", "yaml", "ini", "http", "nginx", "mermaid", "toml", "diff", "html", "lua", "promql")

_BESIDE = "run beside the rest"


@dataclass(frozen=True)
class Block:
    document: Path
    #: Where its first line is.
    line: int
    language: str
    text: str
    comment: str = ""

    @property
    def reason(self) -> str:
        """Why it is not run; empty for one that is."""
        return self.comment.removeprefix("not run: ") if self.comment.startswith("not run: ") else ""

    @property
    def beside(self) -> bool:
        return self.comment == _BESIDE

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a ``console`` block, and what the document says it shows."""

    text: str
    shown: str


def blocks(document: Path, text: str | None = None) -> list[Block]:
    found: list[Block] = []
    lines = ((ROOT / document).read_text() if text is None else text).splitlines()
    start = 0
    while start < len(lines):
        line, before = lines[start], lines[start - 1] if start else ""
        start += 1
        if line.startswith("```"):
            end = lines.index("```", start)
            comment = re.fullmatch(r"<!-- (.*) -->", before)
            body = "\n".join(lines[start:end])
            found.append(Block(document, start + 1, line[3:].strip(), body, comment[1] if comment else ""))
            start = end + 1
        elif line.startswith("    ") and not before.strip():
            # Markdown's other code block, which can name no language; or a list's own text, which is set in by less.
            found.append(Block(document, start, "indented", line))
    return found


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = 1 + next(number for number, line in enumerate(lines) if not line.endswith("\\"))
        found.append(Command("\n".join(lines[:length]), "\n".join(lines[length:])))
    return found
