"""docs/metrics.md says what the code exports."""

from deploy.metrics_page import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "python -m deploy.metrics_page"


def test_no_label_could_name_a_client_or_its_text() -> None:
    labels = {
        label for row in page().splitlines() if row.startswith("| `inferq_") for label in row.split("|")[3].split(",")
    }
    assert {label.strip().strip("`") for label in labels} - {""} == {
        "model", "priority", "line", "state", "outcome", "reason", "step", "version", "role", "method", "route",
        "status", "decision", "result", "policy", "found",
    }  # fmt: skip
