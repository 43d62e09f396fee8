"""Whether each metric is shown or alerted on, and each metric that is named exists."""

from collections.abc import Iterable, Mapping
from typing import Final

from grafana.expressions import all_named

#: Metrics of inferq that no dashboard and no rule names, each with the reason.
LEFT_OUT: Final[Mapping[str, str]] = {}


def unseen(existing: Iterable[str]) -> set[str]:
    """Return the metrics of inferq among ``existing`` that nothing names and nobody left out on purpose.

    Counters are given with their ``_total``, histograms without ``_bucket``.
    """
    return {name for name in existing if name.startswith("inferq_")} - set(all_named()) - set(LEFT_OUT)


def unknown(existing: Iterable[str]) -> dict[str, list[str]]:
    """Return the metrics of inferq that are named and do not exist, with where."""
    known = set(existing)
    return {name: where for name, where in all_named().items() if name.startswith("inferq_") and name not in known}


def outdated(existing: Iterable[str]) -> set[str]:
    """Return what :data:`LEFT_OUT` lists although it is named after all, or does not exist."""
    return {name for name in LEFT_OUT if name in all_named() or name not in set(existing)}
