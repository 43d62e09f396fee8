"""Which names the series of a query may have, and how each looks."""

import re
from collections.abc import Iterator
from typing import Final

from grafana.expressions import named
from grafana.families import FAMILIES
from grafana.model import Query
from grafana.palette import LOOKS, Look

_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")


def known(query: Query) -> Iterator[tuple[str, Look]]:
    """Yield the names that the query's series may have with their looks; nothing for names nobody knows beforehand."""
    labels = _LABEL.findall(query.legend)
    if not labels:
        look = query.look or LOOKS.get(query.legend)
        if look:
            yield query.legend, look
    elif query.legend == f"{{{{{labels[0]}}}}}":
        for value in values(query, labels[0]):
            if value in LOOKS:
                yield value, LOOKS[value]


def values(query: Query, label: str) -> list[str]:
    """Return the values that a label may have in what the query asks for; none when they are open."""
    found: dict[str, None] = {}
    for name in sorted(named(query.expr)):
        found |= dict.fromkeys(FAMILIES[name].labels.get(label, ()))
    return list(found)


def label_names(legend: str) -> list[str]:
    """Return the labels that a legend shows."""
    return _LABEL.findall(legend)


def called(legend: str, labels: dict[str, str]) -> str:
    """Return the name of a series with these labels."""
    return _LABEL.sub(lambda found: labels.get(found[1], ""), legend)
