"""A person at the page at ``/``: a real browser, a real API, a worker that writes slowly enough to be watched."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from inferq.credentials import KeyRing
from inferq_client import Inferq, Job
from tests.browser import browser, needs_browser
from tests.console_page import ConsolePage
from tests.cutter import cutting
from tests.hand_worker import HandWorker
from tests.processes import until
from tests.service import Service, serving
from workers.simulated_engine import simulated_words

pytestmark = needs_browser

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
HTML = "<img src=x onerror=\"document.title='taken'\"><b>bold</b> & <script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two models; the second has no worker but the test."""
    models = "demo=models/demo-mistral, other=org/other"
    with serving(tmp_path_factory.mktemp("service"), models=models, model_name="demo") as running:
        yield running


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture(scope="module")
def tab(service: Service, window: WebDriver) -> ConsolePage:
    return ConsolePage(window, service.url)


@pytest.fixture
def key(service: Service) -> str:
    """The key of a tenant that has asked nothing yet."""
    return service.tenant()


@pytest.fixture
def page(service: Service, tab: ConsolePage, key: str) -> Iterator[ConsolePage]:
    """The page with a good key; nothing must be complained of that a test has not looked at."""
    tab.go(service.url)
    tab.unlock(key)
    yield tab
    assert tab.complaints() == []


def read(service: Service, key: str, job: str) -> Job:
    with Inferq(service.url, key) as client:
        return client.get(job)


def latest(service: Service, key: str) -> Job:
    with Inferq(service.url, key) as client:
        return client.get(str(next(iter(client.list())).id))


def watch(page: ConsolePage) -> list[str]:
    """Look at the answer until it is whole; returns what was seen on the way."""
    until(lambda: page.shown("job"), 10, "a job is shown")
    seen = [""]

    def over() -> bool:
        busy = page.find("answer").get_attribute("aria-busy") == "true"
        text = page.text("answer")
        if text != seen[-1]:
            seen.append(text)
        return not busy

    until(over, 30, "the answer is whole")
    return seen


def test_a_person_asks_and_watches_the_answer_being_written(page: ConsolePage, service: Service, key: str) -> None:
    prompt = "Tell me. simulate:words=1000"
    page.ask(prompt, max_tokens="900", temperature="0.5", priority="low")
    seen = watch(page)
    job = latest(service, key)
    assert job.text == " ".join(simulated_words(prompt, 0, 900))
    assert len(seen) > 5, "it was seen while it was written"
    assert all(job.text.startswith(text) for text in seen)
    assert page.text("answer") == job.text
    assert page.text("job-status") == "Completed, cut off at the most tokens it may have"
    assert page.text("asked-text") == prompt
    details = page.details()
    assert (details["Id"], details["Priority"], details["Model"]) == (job.id, "low", "demo")
    assert details["Tokens"].endswith("900 written")
    assert {"Waited", "First token after", "Ran", "Altogether"} <= details.keys()

    page.ask(prompt)
    until(lambda: page.text("job-status").startswith("Completed from the cache"), 10, "a hit")
    assert page.text("answer") == job.text
    page.find("anew").click()
    page.ask(prompt)
    until(lambda: page.details().get("Id", job.id) != job.id, 10, "another job")
    assert watch(page)[-1] == job.text


def test_a_wrong_key_and_a_wrong_field_are_told(tab: ConsolePage, service: Service, key: str) -> None:
    tab.go(service.url)
    assert tab.focused() == "key"
    for wrong, told in {
        "schlüssel": "The API key is malformed; it looks like iq_<id>_<secret>.",
        "iq_nobody_0123456789abcdef": "The API key is unknown or revoked.",
    }.items():
        tab.enter(wrong)
        until(lambda told=told: tab.text("key-error") == told, 10, told)
        assert tab.find("key").get_attribute("aria-invalid") == "true"
        assert not tab.shown("desk")
        assert tab.window.execute_script("return sessionStorage.length") == 0
    tab.unlock(key)

    tab.ask("Hello", max_tokens="0")
    until(lambda: "greater than or equal to 1" in tab.text("max_tokens-error"), 10, "the field's fault is told")
    assert tab.focused() == "max_tokens"
    assert tab.find("max_tokens").get_attribute("aria-invalid") == "true"
    tab.ask("Hello", max_tokens="many", temperature="3")
    until(lambda: tab.text("temperature-error"), 10, "both are told")
    assert "integer" in tab.text("max_tokens-error")
    assert not tab.shown("job")
    tab.ask("Hello", max_tokens="", temperature="1")
    tab.until_state("completed")
    assert tab.text("max_tokens-error") + tab.text("temperature-error") == ""
    assert tab.complaints(refusals=True) == []


def test_a_key_stays_in_its_tab_and_is_forgotten(page: ConsolePage, service: Service, key: str) -> None:
    page.ask("A secret of mine")
    page.until_state("completed")
    page.window.refresh()
    until(lambda: page.shown("desk"), 10, "the key is still known")
    assert page.text("held-name") == "_".join(key.split("_")[:2])
    assert key not in page.window.current_url
    assert key not in page.window.page_source
    stored = "return [Object.values(sessionStorage), Object.values(localStorage), document.cookie]"
    assert page.window.execute_script(stored) == [[key], [], ""]
    until(page.rows, 10, "jobs are listed")
    page.find("forget").send_keys(Keys.ENTER)
    until(lambda: page.shown("key-form"), 10, "a key is asked for")
    assert page.window.execute_script(stored) == [[], [], ""]
    assert page.rows() == []
    assert page.text("answer") + str(page.find("prompt").get_property("value")) == ""

    page.unlock(key)
    KeyRing(service.redis).revoke(key.split("_")[1])
    page.ask("Am I still known?")
    until(lambda: page.shown("key-form"), 10, "a revoked key is noticed")
    assert page.text("key-error") == "The API key is unknown or revoked."
    assert page.window.execute_script(stored) == [[], [], ""]
    assert page.complaints(refusals=True) == []


def test_jobs_wait_are_cancelled_and_listed(page: ConsolePage, service: Service, key: str) -> None:
    page.ask("first", model="other")
    page.until_state("queued")
    first = page.details()["Id"]
    page.ask("second", model="other")
    until(lambda: "position 2" in page.text("job-status"), 10, "there is one before it")
    second = page.details()["Id"]
    until(lambda: "2 (2 normal)" in page.find("engines").text, 10, "the queue is shown")
    until(lambda: page.listed() == ["second", "first"], 10, "newest first")
    assert [row.get_attribute("aria-current") for row in page.rows()] == ["true", "false"]

    with Inferq(service.url, key) as client:
        client.cancel(first)
    until(lambda: "position 1" in page.text("job-status"), 10, "it moves up")
    page.find("cancel").send_keys(Keys.ENTER)
    page.until_state("cancelled")
    assert read(service, key, second).status == "cancelled"
    assert page.focused() == "job-title", "whoever uses the keyboard is not left behind"
    assert not page.shown("cancel")

    page.ask("Tell me at length. simulate:slow", model="demo")
    page.until_state("in_progress")
    until(lambda: page.text("answer"), 10, "it is being written")
    page.find("cancel").click()
    page.until_state("cancelled")
    assert latest(service, key).status == "cancelled"
    page.ask("simulate:fails")
    page.until_state("failed")
    assert page.text("job-status").startswith("Failed: ")

    until(lambda: len(page.rows()) == 4, 10, "all are listed")
    page.rows()[-1].send_keys(Keys.ENTER)
    until(lambda: page.details().get("Id") == first, 10, "the first is shown")
    assert page.text("job-status").startswith("Cancelled")
    assert page.text("asked-text") == "first"


def test_an_answer_stays_text_and_a_lost_attempt_is_void(page: ConsolePage, service: Service, key: str) -> None:
    worker = HandWorker(service.redis, service.settings.model_copy(update={"model_name": "other"}))
    page.ask(HTML, model="other")
    page.until_state("queued")
    void = "This will be void. "
    run = worker.claim()
    worker.store.append([(run.id, run.fence, 0, void)])
    until(lambda: page.text("answer") == void, 10, "the first attempt is seen")
    worker.store.release(run)
    until(lambda: page.text("answer") == "", 10, "it is void")
    assert page.text("job-note").startswith("Attempt 1 ended early")
    run = worker.claim()
    begun = HTML[: HTML.index("onerror")]
    worker.store.append([(run.id, run.fence, 0, begun)])
    until(lambda: page.text("answer") == begun, 10, "the second is seen")
    assert page.text("job-status") == "Running, attempt 2"
    worker.finish(run, HTML)
    page.until_state("completed")
    job = page.details()["Id"]
    assert page.text("answer") == HTML == read(service, key, job).text

    page.window.refresh()
    until(page.rows, 10, "it is listed")
    page.rows()[0].click()
    until(lambda: page.text("answer") == HTML, 10, "it is read from its record")
    assert page.window.find_elements(By.CSS_SELECTOR, "main img, main b, main script") == []
    assert page.window.title == "inferq"


def test_a_connection_that_is_cut_is_taken_up_where_it_was(tab: ConsolePage, service: Service, key: str) -> None:
    with cutting(service.url) as way:
        tab.go(way.url)
        tab.unlock(key)
        prompt = "Tell me. simulate:slow simulate:words=24"
        tab.ask(prompt)
        answer = " ".join(simulated_words(prompt, 0, 256))
        for count in range(1, 4):
            until(lambda count=count: len(tab.text("answer").split()) >= 3 * count, 10, "more of it")
            cut = way.cut
            way.cuts = 2
            until(lambda cut=cut: way.cut > cut + 1, 10, "it was cut")
        seen = watch(tab)
        assert all(answer.startswith(text) for text in seen[1:]), "nothing twice, nothing left out"
        tab.until_state("completed")
        assert tab.text("answer") == answer == latest(service, key).text
        assert tab.complaints(refusals=True) == []
        tab.go(service.url)


def test_it_can_be_read_by_everybody(page: ConsolePage, service: Service, key: str, tmp_path: Path) -> None:
    with Inferq(service.url, key) as client:
        for number in range(3):
            client.run(f"Something {number} simulate:words={20 + number}")
    page.ask("Tell me everything. " + "word" * 60)
    page.until_state("completed")
    until(lambda: len(page.rows()) == 4, 10, "all are listed")
    try:
        look_at(page, tmp_path, "desk")
        page.find("forget").click()
        until(lambda: page.shown("key-form"), 10, "a key is asked for")
        look_at(page, tmp_path, "key")
    finally:
        page.scheme("")
        page.size(*SIZES["desktop"])


def look_at(page: ConsolePage, directory: Path, name: str) -> None:
    """Look at the page at either size in either scheme, and leave pictures."""
    assert page.nameless() == []
    for size, pixels in SIZES.items():
        page.size(*pixels)
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            assert page.too_wide() == page.faint() == []
            page.picture(directory / f"{name}-{size}-{scheme}.png")


def test_without_scripts_it_says_so(window: WebDriver, service: Service) -> None:
    with scripts_off(window):
        window.get(service.url)
        text = window.find_element(By.TAG_NAME, "body").text
        links = [link.get_attribute("href") for link in window.find_elements(By.TAG_NAME, "a") if link.is_displayed()]
    assert "needs JavaScript" in text
    assert "Your key" not in text
    assert {f"{service.url}/docs", f"{service.url}/openapi.json"} <= set(links)


@contextlib.contextmanager
def scripts_off(window: WebDriver) -> Iterator[None]:
    off: dict[str, Any] = {"value": True}
    window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", off)
    try:
        yield
    finally:
        window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
