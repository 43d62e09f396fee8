"""PromQL as dashboards need it: every selector within ``$job`` and ``$instance``, shared series counted once."""

from typing import Final

from grafana.families import FAMILIES, Family

#: What every selector carries.
SCOPE: Final = 'job=~"$job", instance=~"$instance"'
#: What a selector carries besides when its metric has the label.
NARROWED: Final = ("model", "priority")
RATE: Final = "$__rate_interval"


def pick(name: str, where: str = "", *, suffix: str = "") -> str:
    """Return a selector of a metric: its scope, the dashboard's variables that it has, and ``where``."""
    family = FAMILIES[name]
    narrowed = [f'{label}=~"${label}"' for label in NARROWED if label in family.labels]
    matchers = ", ".join([SCOPE, *narrowed, *([where] if where else [])])
    return f"{name}{suffix}{{{matchers}}}"


def gauge(name: str, *by: str, where: str = "", how: str = "sum") -> str:
    """Return a gauge's values, put together over all but the labels ``by``."""
    return _together(FAMILIES[name], pick(name, where), by, how)


def rate(name: str, *by: str, where: str = "", over: str = RATE) -> str:
    """Return a counter's growth per second."""
    return _together(FAMILIES[name], f"rate({pick(name, where)}[{over}])", by, "sum")


def increase(name: str, *by: str, where: str = "", over: str = "$__range") -> str:
    """Return by how much a counter grew in the time that is shown."""
    return _together(FAMILIES[name], f"increase({pick(name, where)}[{over}])", by, "sum")


def quantile(q: float, name: str, *by: str, where: str = "") -> str:
    """Return a quantile of a histogram, and nothing instead of NaN when it has counted nothing."""
    buckets = f"rate({pick(name, where, suffix='_bucket')}[{RATE}])"
    return f"histogram_quantile({q}, {_together(FAMILIES[name], buckets, ('le', *by), 'sum', 'le')}) >= 0"


def mean(name: str, *by: str) -> str:
    """Return the mean of what a histogram has counted; nothing when it has counted nothing."""
    return ratio(*(_of_histogram(name, suffix, by) for suffix in ("_sum", "_count")))


def within(bound: str, name: str, *by: str) -> str:
    """Return the share of what a histogram has counted that is at most ``bound``, which must be one of its buckets."""
    return ratio(_of_histogram(name, "_bucket", by, f'le="{bound}"'), _of_histogram(name, "_count", by))


def spread(name: str) -> str:
    """Return a histogram's buckets as a heatmap needs them: how many fell into each."""
    buckets = f"increase({pick(name, suffix='_bucket')}[{RATE}])"
    return _together(FAMILIES[name], buckets, ("le",), "sum", "le")


def ratio(part: str, whole: str) -> str:
    """Return a ratio, and nothing instead of NaN where there is nothing to divide by."""
    return f"{part} / ({whole} > 0)"


def _of_histogram(name: str, suffix: str, by: tuple[str, ...], where: str = "") -> str:
    return _together(FAMILIES[name], f"rate({pick(name, where, suffix=suffix)}[{RATE}])", by, "sum")


def _together(family: Family, inner: str, by: tuple[str, ...], how: str, *own: str) -> str:
    unknown = set(by) - set(family.labels) - {"le", "job", "instance"}
    if unknown:
        raise ValueError(f"{family.name} has no label {', '.join(sorted(unknown))}")
    if family.shared:
        labels = [*own, *family.labels]
        inner = f"max by ({', '.join(labels)}) ({inner})" if labels else f"max({inner})"
        if set(labels) == set(by) or (not labels and not by):
            return inner
    return f"{how} by ({', '.join(by)}) ({inner})" if by else f"{how}({inner})"
