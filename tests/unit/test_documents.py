"""Every block of a document says what it is, and a command is run or has a reason why not."""

from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, QUIET, SHELL, Block, Command, blocks, commands

SAMPLE = """A text.

<!-- not run: needs a moon -->
```sh
launch
```

```console
$ one \\
    two
said
$ three
```

- a list

  with text

    indented
"""


def test_blocks_are_found_with_what_is_said_of_them() -> None:
    document = Path("sample.md")
    launch, talk, indented = blocks(document, SAMPLE)
    assert launch == Block(document, 5, "sh", "launch", "not run: needs a moon")
    assert (launch.reason, talk.reason, indented.language) == ("needs a moon", "", "indented")
    assert commands(talk) == [Command("one \\\n    two", "said"), Command("three", "")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_block_is_run_or_says_why_not(document: Path) -> None:
    for block in blocks(document):
        assert block.language in (*SHELL, *QUIET, "python"), f"{block}: a fence names its language, tests/documents.py"
        if block.comment:
            assert block.reason or block.beside, f"{block}: not a comment that tests/documents.py knows"
            assert block.language in SHELL, f"{block}: nobody would run it"
        if block.language == "console":
            assert commands(block), f"{block}: no line begins with a dollar"


def test_documents_that_must_be_there_are() -> None:
    assert {"README.md", "CONTRIBUTING.md", "client/README.md", "docs/webhooks.md"} <= set(map(str, DOCUMENTS))
