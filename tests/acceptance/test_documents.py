"""What the documents tell people to type works as it is written, from a fresh checkout, on a service that runs.

Blocks of a document are run in order by one shell; tests/documents.py says which. Only what must differ is changed:
addresses, keys, and the ids of jobs.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.stack import free_port
from inferq_client import Inferq
from tests.documents import DOCUMENTS, SHELL, Block, Command, blocks, commands
from tests.processes import ROOT, until
from tests.service import Service
from tests.shell import Shell

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
#: Programs that a machine may lack: without them their blocks cannot be run here.
PROGRAMS = ("curl", "jq")
#: What a server that runs beside the rest must have said at the end.
SAID_BESIDE = {"docs/webhooks.md": "job.completed"}


class Reader:
    """Somebody who types what a document says."""

    def __init__(self, service: Service, directory: Path) -> None:
        self._service = service
        self._key = service.tenant()
        self._ids: dict[str, str] = {}
        self._secret = ""
        self._receiver_port = free_port()
        self._checkout = checkout(directory)
        self._environment = self._variables(directory)
        self.outputs: list[Path] = []
        notes = directory / "notes"
        notes.mkdir()
        self._shell = Shell(self._checkout, self._environment, notes)

    def _variables(self, directory: Path) -> dict[str, str]:
        home = directory / "home"
        home.mkdir()
        # Without this environment's programs: documents say how one gets at them.
        path = [part for part in os.environ["PATH"].split(os.pathsep) if not part.startswith(sys.prefix)]
        return {
            "PATH": os.pathsep.join(path),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            # The environment has the client of some checkout; this one's comes first.
            "PYTHONPATH": str(ROOT / "client" / "src"),
            "KEY": self._key,
            "API_PORT": str(self._service.settings.api_port),
            "PORT": str(self._receiver_port),
        }

    def real(self, text: str) -> str:
        """The text with this service's addresses and keys in it."""
        host, port = self._service.settings.api_host, self._service.settings.api_port
        text = re.sub(r"(localhost|127\.0\.0\.1):8000\b", f"{host}:{port}", text)
        text = re.sub(r"redis://127\.0\.0\.1:\d+", self._service.settings.redis_url, text)
        text = text.replace("127.0.0.1:8099", f"127.0.0.1:{self._receiver_port}")
        text = text.replace("iq_…", self._key).replace("whsec_…", self._secret)
        return re.sub(UUID, lambda found: self._id(found[0]), text)

    def _id(self, written: str) -> str:
        """The job that a document means: the one it saw before, else one that runs for long."""
        if written not in self._ids:
            with Inferq(self._service.url, self._key) as client:
                job = client.submit("simulate:words=4000 simulate:slow", max_tokens=4000)
            self._ids[written] = str(job.id)
        return self._ids[written]

    def follow(self, block: Block) -> None:
        if block.beside:
            self.outputs.append(self._shell.beside(self.real(block.text)))
        elif block.language == "console":
            for command in commands(block):
                self._type(block, command)
        else:
            status, out, err = self._shell.run(self.real(block.text))
            assert status == 0, f"{block} ended with {status}\n{out}{err}"
            well(block, out + err)

    def _type(self, block: Block, command: Command) -> None:
        names = re.findall(r'"(\w+)": ?', command.shown)
        status, out, err = self._shell.run(self.real(command.text), strict=False)
        # A reader is slower than this, and the job has ended before he asks for it.
        until_s = time.monotonic() + 30
        while "/jobs/" in command.text and '"in_progress"' in out and time.monotonic() < until_s:
            if all(f'"{name}":' in out for name in names) or "-d " in command.text:
                break
            time.sleep(0.2)
            status, out, err = self._shell.run(self.real(command.text), strict=False)
        told = f"{block}: {command.text}\n{out}{err}"
        if "PROBLEM" not in command.shown:  # of `doctor`, which then ends with 1
            assert status == 0, told
        expected, _, _ = command.shown.partition("\n\n")
        if expected.startswith("HTTP/"):
            first, *headers = expected.splitlines()
            assert out.splitlines()[0].strip() == first, told
            for header in headers:
                assert f"\n{header.partition(':')[0]}: " in out, told
        for name in names:
            assert re.search(rf'"{name}": ?', out), f"no {name}: {told}"
        for problem in re.findall(r"urn:inferq:problem:[a-z-]+", command.shown):
            assert problem in out, told
        if "urn:inferq:problem" not in command.shown:
            well(block, out + err)
        shown, said = (re.search(rf'"id":"({UUID})"', text) for text in (command.shown, out))
        if shown and said:
            self._ids[shown[1]] = said[1]
        if secret := re.search(r"whsec_[\w+/=]{10,}", out):
            self._secret = secret[0]

    def python(self, examples: list[str]) -> str:
        """Run all examples in one process: each alone would mostly wait for its imports."""
        code = "\n".join(f"exec({self.real(example)!r}, {{'__name__': '__main__'}})" for example in examples)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=self._checkout,
            env=self._environment | {"INFERQ_URL": self._service.url, "INFERQ_API_KEY": self._key},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        self._shell.close()


def well(block: Block, output: str) -> None:
    for bad in ("urn:inferq:problem", "Traceback", "command not found", "No such file"):
        assert bad not in output, f"{block}\n{output}"


def checkout(directory: Path) -> Path:
    """What looks like this checkout, after ``make install``, and is written into instead of it."""
    place = directory / "checkout"
    place.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
            (place / entry.name).symlink_to(entry)
    (place / ".venv").symlink_to(sys.prefix)
    return place


@pytest.fixture
def reader(service: Service, tmp_path: Path) -> Iterator[Reader]:
    reading = Reader(service, tmp_path)
    try:
        yield reading
    finally:
        reading.close()


def run(document: Path) -> list[Block]:
    return [block for block in blocks(document) if block.language in (*SHELL, "python") and not block.reason]


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if run(document)], ids=str)
def test_a_document_can_be_typed_as_it_is_written(document: Path, reader: Reader) -> None:
    found = run(document)
    absent = []
    for block in found:
        if block.language == "python":
            continue
        missing = [name for name in PROGRAMS if re.search(rf"\b{name} ", block.text) and not shutil.which(name)]
        if missing:
            absent.append(f"{block} needs {', '.join(missing)}")
        if absent:  # what follows may use what it would have said
            continue
        reader.follow(block)
    if (said := SAID_BESIDE.get(str(document))) and not absent:
        for output in reader.outputs:
            until(lambda output=output: said in output.read_text(), 30, f"{said} in {output}")
    examples = [block.text for block in found if block.language == "python"]
    if examples:
        output = reader.python(examples)
        if document == Path("docs/client.md"):
            assert "Usage(prompt_tokens=" in output
            assert "Ended(job=" in output
    if absent:
        pytest.skip("; ".join(absent))
