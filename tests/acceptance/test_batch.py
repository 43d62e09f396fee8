"""``inferq batch``: interrupted in every way and gone on with, nothing is run twice."""

import json
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inferq_client import Inferq
from tests.command import COMMAND, environment, inferq_here, terminal
from tests.processes import until
from tests.service import Service


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def has(results: Path, enough: int) -> bool:
    return results.exists() and len(results.read_bytes().splitlines()) >= enough


@pytest.fixture
def key(service: Service) -> str:
    return service.tenant()


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", [f"batch {number} simulate:words=20" for number in range(60)])


def test_a_file_is_worked_off_once(service: Service, key: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "simulate:words=3"}]
    lines = [
        "simulate:words=4",
        {"prompt": "simulate:words=4", "custom_id": "b", "metadata": {"a": "b"}},
        {"messages": turns, "max_tokens": 2, "custom_id": "c"},
        "simulate:words=4",
    ]
    prompts, results = write(tmp_path / "prompts.jsonl", lines), tmp_path / "results.jsonl"
    command = ("batch", str(prompts), "-o", str(results), "--temperature", "0")
    done = inferq_here(service.url, key, *command, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"lines": 4, "completed": 4, "failed": 0})
    found = {one["line"]: one for one in read(results)}
    assert [len(found[number]["text"].split()) for number in (1, 2, 3, 4)] == [4, 4, 2, 4]
    assert (found[2]["custom_id"], found[3]["finish_reason"], found[3]["usage"]["completion_tokens"]) == (
        "b",
        "length",
        2,
    )
    with Inferq(service.url, key) as client:
        assert client.get(found[2]["job"]).metadata == {"a": "b"}
    again = inferq_here(service.url, key, *command)
    assert (again.returncode, "4 of 4 lines have their results already" in again.stderr) == (0, True)
    results.unlink()  # lost: the same keys bring the same jobs
    assert inferq_here(service.url, key, *command).returncode == 0
    assert {one["job"] for one in read(results)} == {one["job"] for one in found.values()}
    assert service.submitted(key) == 4
    # One line more, in front: only that one is asked.
    write(prompts, ["simulate:words=1", *lines])
    assert inferq_here(service.url, key, *command).returncode == 0
    assert service.submitted(key) == 5
    assert inferq_here(service.url, key, *command, "--name", "another").returncode == 0
    assert service.submitted(key) == 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_it_goes_on_and_nothing_is_run_twice(
    service: Service, key: str, prompts: Path, tmp_path: Path, number: signal.Signals
) -> None:
    results = tmp_path / "results.jsonl"
    command = ("batch", str(prompts), "-o", str(results), "--concurrency", "8")
    for enough in (5, 20):
        with subprocess.Popen(
            [*COMMAND, *command], env=environment(service.url, key), stderr=subprocess.PIPE, text=True
        ) as process:
            until(partial(has, results, enough), what="some results")
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        assert process.returncode == (130 if number is signal.SIGINT else -9)
        if number is signal.SIGINT:
            assert "the same command goes on from here" in said
            assert "Traceback" not in said
    if number is signal.SIGKILL:
        for torn in (results, tmp_path / "results.jsonl.jobs"):
            torn.write_bytes(torn.read_bytes()[:-5])  # the last write was not finished
    done = inferq_here(service.url, key, *command)
    assert (done.returncode, "60 of 60 completed" in done.stderr) == (0, True)
    assert sorted(one["line"] for one in read(results)) == list(range(1, 61))
    assert len({one["job"] for one in read(results)}) == 60
    assert service.submitted(key) == 60
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".jobs"] == []


def test_lines_that_fail_are_told_and_asked_again_only_when_told_to(service: Service, key: str, tmp_path: Path) -> None:
    lines = ["fine", "simulate:fails", {"prompt": "x", "max_tokens": 0}, {"prompt": "x", "idempotency_key": "y"}]
    prompts, results = write(tmp_path / "prompts.jsonl", lines), tmp_path / "results.jsonl"
    command = ("batch", str(prompts), "-o", str(results))
    for submitted in (2, 2):
        done = inferq_here(service.url, key, *command)
        assert (done.returncode, "1 of 4 completed, 3 failed" in done.stderr) == (1, True)
        assert service.submitted(key) == submitted
    found = {one["line"]: one for one in read(results)}
    assert (found[2]["status"], found[2]["error"]["code"]) == ("failed", "simulated_failure")
    assert (found[3]["status"], "max_tokens" in found[3]["error"]["message"]) == ("refused", True)
    assert "idempotency_key" in found[4]["error"]["message"]
    assert inferq_here(service.url, key, *command, "--retry-failed").returncode == 1
    assert (service.submitted(key), len(read(results))) == (3, 7)


def test_a_result_that_has_expired_is_asked_again(service: Service, key: str, tmp_path: Path) -> None:
    prompts, results = write(tmp_path / "prompts.jsonl", ["simulate:words=2"]), tmp_path / "results.jsonl"
    command = ("batch", str(prompts), "-o", str(results))
    assert inferq_here(service.url, key, *command).returncode == 0
    (first,) = read(results)
    (tmp_path / "results.jsonl.jobs").write_text(json.dumps({"key": first["key"], "job": first["job"]}) + "\n")
    results.unlink()
    with Inferq(service.url, key) as client:
        client.delete(first["job"])
    assert inferq_here(service.url, key, *command).returncode == 0
    (second,) = read(results)
    assert second["job"] != first["job"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'"fine"\n{broken\n', "line 2: is not JSON"),
        (b'"fine"\n\n{"prompt": "a", "messages": []}\n', "line 3: must be a string or an object"),
        (b"[1]\n", "line 1: must be"),
        (b'{"prompt": 5}\n', "line 1: must be"),
        (b'{"messages": ["hi"]}\n', "line 1: must be"),
        (b"\xff\n", "is not UTF-8"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_asked(
    service: Service, key: str, tmp_path: Path, content: bytes, said: str
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes(content)
    done = inferq_here(service.url, key, "batch", str(prompts), "-o", str(tmp_path / "results.jsonl"))
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert service.submitted(key) == 0


def test_a_file_that_is_no_ledger_and_two_at_once(service: Service, key: str, prompts: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    for content in ("shopping list\n", '{"a": 1}\n', "[]\n"):
        other.write_text(content)
        done = inferq_here(service.url, key, "batch", str(prompts), "-o", str(other))
        assert (done.returncode, "name another" in done.stderr, other.read_text()) == (2, True, content)
    results = tmp_path / "results.jsonl"
    command = ("batch", str(prompts), "-o", str(results), "--concurrency", "1")
    with terminal(service.url, key, *command) as first:
        first.shows("/60")
        second = inferq_here(service.url, key, *command)
        assert (second.returncode, "another inferq batch" in second.stderr) == (2, True)
        first.process.send_signal(signal.SIGINT)
        assert first.ended() == 130
        assert "/s" in first.output
