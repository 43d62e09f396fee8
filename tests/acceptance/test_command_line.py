"""The command line: what goes where, in a pipe and on a terminal, and with which exit status it ends."""

import itertools
import json
import signal
import subprocess

import pytest

from inferq.credentials import KeyLimits, KeyRing
from inferq_client import Inferq
from tests.command import COMMAND, environment, inferq, inferq_here, terminal
from tests.event_server import CUT, JOB, event, streaming
from tests.receiver import receiving
from tests.service import Service

_NUMBERS = itertools.count()


def words(number: int, *more: str) -> str:
    return f"command {next(_NUMBERS)} simulate:words={number} {' '.join(more)}"


def test_in_a_pipe_the_answer_alone_is_on_stdout(service: Service) -> None:
    done = inferq(service.url, service.key, "submit", words(6), "--temperature", "0", "--metadata", "a=b")
    assert (done.returncode, len(done.stdout.split())) == (0, 6)
    assert done.stdout.count("\n") == 1
    assert "completed" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    asked = inferq(service.url, service.key, "submit", "-", "--json", input=words(2))
    job = json.loads(asked.stdout)
    assert (job["status"], job["object"], asked.stderr) == ("completed", "job", "")
    got = inferq_here(service.url, service.key, "get", job["id"])
    assert (got.returncode, got.stdout) == (0, job["output"]["text"] + "\n")
    assert json.loads(inferq_here(service.url, service.key, "get", job["id"], "--json").stdout) == job


def test_jobs_are_made_listed_and_cancelled(service: Service) -> None:
    key = service.tenant()
    job = inferq_here(service.url, key, "submit", words(4000), "--max-tokens", "4000", "--no-wait").stdout.strip()
    assert len(job) == 36
    again = inferq_here(service.url, key, "submit", "hi", "--no-wait", "--idempotency-key", "k1", "--chat").stdout
    assert (
        inferq_here(service.url, key, "submit", "hi", "--no-wait", "--idempotency-key", "k1", "--chat").stdout == again
    )
    cancelled = inferq_here(service.url, key, "cancel", job)
    assert cancelled.stdout.split()[0] == job
    waited = inferq_here(service.url, key, "get", job, "--wait")
    assert (waited.returncode, waited.stdout, "cancelled" in waited.stderr) == (1, "", True)
    rows = [line.split("\t") for line in inferq_here(service.url, key, "list").stdout.splitlines()]
    assert [row[0] for row in rows] == [again.strip(), job]
    assert rows[1][1:3] == ["cancelled", "normal"]
    lines = inferq_here(service.url, key, "list", "--json", "--status", "cancelled").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [job]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("submit", "hi", "--max-tokens", "0"), 3, "max_tokens: Input should be greater"),
        (("submit", "hi", "--cache", "only-if-cached", "--seed", "77"), 4, "forbids making one.\n"),
        (("submit", " "), 2, "the prompt is empty"),
        (("submit", "hi", "--metadata", "a"), 2, "NAME=VALUE"),
        (("nonsense",), 2, "No such command"),
        (("get", "01a20a0d-5622-7cb3-a198-596cd62f6c30"), 4, "There is no such job"),
        (("cancel", "01a20a0d-5622-7cb3-a198-596cd62f6c30"), 4, "There is no such job"),
        (("submit", "hi", "--url", "localhost:8000"), 2, "INFERQ_URL must be an address"),
        (("submit", "hi", "--api-key", "iq_x_unknownunknown"), 5, "Set INFERQ_API_KEY"),
        (("submit", "simulate:words=5000 simulate:slow", "--max-tokens", "5000", "--timeout", "0.2"), 8, "still"),
        (("submit", "simulate:fails"), 1, "told to fail"),
        (("batch", "/no/such/file", "-o", "/tmp/none"), 2, "/no/such/file"),
    ],
)
def test_exit_statuses(service: Service, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = inferq_here(service.url, service.key, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_exit_statuses_of_limits_and_of_what_does_not_answer(service: Service) -> None:
    key = KeyRing(service.redis).create("hasty", limits=KeyLimits(requests=1))
    assert inferq_here(service.url, key, "submit", "hi", "--no-wait").returncode == 0
    limited = inferq_here(service.url, key, "submit", "hi", "--no-wait")
    assert (limited.returncode, "Try again in" in limited.stderr) == (6, True)
    with receiving(lambda _, __: 404) as other:
        strange = inferq_here(other.url, "", "submit", "hi")
        assert (strange.returncode, "not inferq" in strange.stderr) == (7, True)
    nobody = inferq_here("http://127.0.0.1:9", "", "top", "--json")
    assert (nobody.returncode, "is inferq at http://127.0.0.1:9?" in nobody.stderr) == (7, True)


def test_whoever_stops_reading_is_no_error(service: Service) -> None:
    key = service.tenant()
    with Inferq(service.url, key) as client:
        for number in range(30):
            client.submit("hi", metadata={"long": f"{number}" * 200})
    with subprocess.Popen(
        [*COMMAND, "list", "--json"],
        env=environment(service.url, key), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0,
    ) as process:  # fmt: skip
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(30) == 141
    assert said == ""


def test_a_terminal_sees_where_the_job_is_and_then_the_answer(service: Service) -> None:
    with terminal(service.url, service.key, "submit", words(40), "--no-stream") as shown:
        shown.shows("completed")
        assert shown.ended() == 0
        assert "tokens" in shown.output
        assert "\x1b[" in shown.output


def test_a_terminal_sees_tokens_of_a_real_job(service: Service) -> None:
    with terminal(service.url, service.key, "submit", words(60)) as shown:
        assert shown.ended() == 0
        assert "60 tokens" in shown.output


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_ctrl_c_cancels_the_job(service: Service, stream: str) -> None:
    key = service.tenant()
    with terminal(service.url, key, "submit", words(5000), "--max-tokens", "5000", stream) as shown:
        shown.shows("in progress" if stream == "--no-stream" else "queue")
        shown.process.send_signal(signal.SIGINT)
        assert shown.ended() == 130
        assert "cancelled job" in shown.output
    with Inferq(service.url, key) as client:
        (job,) = client.list()
        assert client.wait(job).status == "cancelled"


def test_tokens_come_as_they_are_told() -> None:
    pieces = [
        event(1, "status", {"status": "queued", "queue": {"position": 2, "eta_s": 3}}),
        event(2, "token", {"text": "one \x1b[31m"}),
    ]
    more = [event(3, "restarted", {}), event(4, "token", {"text": "two"})]
    done = JOB | {"status": "completed", "terminal": True, "output": {"text": "two", "finish_reason": "stop"}}
    with (
        streaming([*pieces, CUT], [*more, event(5, "done", done)]) as server,
        terminal(server.url, "", "submit", "hi") as shown,
    ):
        assert shown.ended() == 0
        one, again, two = (shown.output.index(text) for text in ("one ", "void", "two"))
        assert one < again < two
        assert "\x1b[31m" not in shown.output, "an answer does not move the terminal"
    with streaming([event(1, "error", JOB | {"status": "expired", "terminal": True})]) as server:
        assert inferq_here(server.url, "", "submit", "hi", "--stream").returncode == 1


def test_top_shows_queue_and_workers(service: Service) -> None:
    shown = inferq_here(service.url, service.key, "top").stdout
    assert all(text in shown for text in ("demo-mistral", "ready", "of 4 slots", "worker 1"))
    assert "\x1b" not in shown
    state = json.loads(inferq_here(service.url, service.key, "top", "--json").stdout)
    assert state["queue"]["object"] == "queue"
    with terminal(service.url, service.key, "top", "--every", "0.1") as live:
        live.shows("demo-mistral")
        live.process.send_signal(signal.SIGINT)
        assert live.ended() == 0


def test_completion_and_help() -> None:
    env = environment("", "") | {"_INFERQ_COMPLETE": "complete_bash", "COMP_WORDS": "inferq su", "COMP_CWORD": "1"}
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, timeout=60)
    assert "submit" in done.stdout
    assert "--output" in inferq_here("", "", "batch", "--help").stdout
    assert inferq_here("", "", "--version").stdout.startswith("inferq ")


def test_without_its_libraries_the_command_line_says_what_is_missing() -> None:
    code = "import sys; sys.modules['typer'] = None; from inferq_client.__main__ import run; raise SystemExit(run())"
    done = subprocess.run(
        [*COMMAND[:1], "-c", code], env=environment("", ""), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (2, "inferq: the command line needs: pip install 'inferq-client[cli]'\n")
