"""Values as Grafana writes them."""

from typing import Final

_THOUSANDS: Final = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " K"))
_BYTES: Final = ((2.0**40, " TiB"), (2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"))
_SPANS: Final = ((86400.0, " d"), (3600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Return ``value`` in words of ``unit``, which is one of Grafana's names."""
    match unit:
        case "s":
            return _scaled(value, _SPANS, " s", decimals)
        case "percentunit":
            return _number(100 * value, decimals) + "%"
        case "bytes":
            return _scaled(value, _BYTES, " B", decimals)
        case "short":
            return _scaled(value, _THOUSANDS, "", decimals)
        case "reqps":
            return _scaled(value, _THOUSANDS, "", decimals) + " req/s"
        case "celsius":
            return _number(value, decimals) + " °C"
        case "watt":
            return _number(value, decimals) + " W"
        case "none":
            return _number(value, decimals)
    raise ValueError(f"no words for the unit {unit}")


def _scaled(value: float, scale: tuple[tuple[float, str], ...], small: str, decimals: int | None) -> str:
    for size, name in scale:
        if abs(value) >= size:
            return _number(value / size, decimals) + name
    return _number(value, decimals) + small


def _number(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text if "e" not in text else f"{value:.4f}".rstrip("0").rstrip(".")
