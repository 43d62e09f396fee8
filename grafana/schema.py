"""Dashboards as Grafana's JSON (schema 39, which Grafana 10.3 and later read)."""

from typing import Any, Final

from grafana.annotations import ANNOTATIONS
from grafana.looks import known
from grafana.model import Dashboard, Panel, Place, Query, Row, places
from grafana.palette import PLAIN, Look

Json = dict[str, Any]
SCHEMA: Final = 39
DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
_DASHES: Final = {"dash": [10, 6], "dot": [2, 6]}
_LAST: Final[Json] = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def dashboard_json(board: Dashboard, all_boards: tuple[Dashboard, ...], runbook: dict[str, int]) -> Json:
    """Return a dashboard; ``runbook`` has the panel of the runbook's dashboard for each alert."""
    panels = []
    for number, (thing, place) in enumerate(places(board), 1):
        panels.append(_row(number, thing, place) if isinstance(thing, Row) else _panel(number, thing, place, runbook))
    return {
        "annotations": {"list": [_annotation(*each) for each in _events()]},
        "description": board.description,
        "editable": False,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [_link(other) for other in all_boards if other.uid != board.uid],
        "panels": panels,
        "refresh": "30s",
        "schemaVersion": SCHEMA,
        "tags": ["inferq"],
        "templating": {"list": _variables()},
        "time": {"from": f"now-{board.minutes}m", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": board.title,
        "uid": board.uid,
        "version": 1,
        "weekStart": "",
    }


def _row(number: int, row: Row, place: Place) -> Json:
    return {
        "collapsed": False, "gridPos": _grid(place), "id": number, "panels": [], "title": row.title, "type": "row"
    }  # fmt: skip


def _grid(place: Place) -> Json:
    return {"h": place.height, "w": place.width, "x": place.x, "y": place.y}


def _panel(number: int, panel: Panel, place: Place, runbook: dict[str, int]) -> Json:
    common = {
        "description": panel.description,
        "gridPos": _grid(place),
        "id": number,
        "options": _options(panel),
        "title": panel.title,
        "type": panel.kind,
    }
    if panel.kind == "text":
        return common
    return common | {
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "links": [
            {"title": f"Runbook: {alert}", "url": f"/d/inferq-runbook?viewPanel={runbook[alert]}"}
            for alert in panel.alerts
        ],
        "targets": [_target(chr(ord("A") + index), query, panel) for index, query in enumerate(panel.queries)],
    }


def _target(letter: str, query: Query, panel: Panel) -> Json:
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "instant": query.instant,
        "legendFormat": query.legend,
        "range": not query.instant,
        "refId": letter,
    }


def _defaults(panel: Panel) -> Json:
    steps = [{"color": panel.base, "value": None}, *({"color": s.colour, "value": s.value} for s in panel.steps)]
    given = {"min": panel.low, "max": panel.high, "decimals": panel.decimals}
    return {
        "color": _colour(panel),
        "custom": _custom(panel),
        "mappings": _mappings(panel),
        "noValue": panel.empty,
        "thresholds": {"mode": "absolute", "steps": steps},
        "unit": panel.unit,
    } | {name: value for name, value in given.items() if value is not None}


def _colour(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {"mode": "thresholds"}
    if panel.kind == "bargauge":
        return {"mode": "fixed", "fixedColor": PLAIN}
    # Series that nobody knows beforehand: told apart by how light they are.
    return {"mode": "shades", "fixedColor": PLAIN}


def _custom(panel: Panel) -> Json:
    if panel.kind != "timeseries":
        return {}
    return {
        "axisPlacement": "auto",
        "drawStyle": "line",
        "fillOpacity": 80 if panel.stacked else 8,
        "lineInterpolation": "linear",
        "lineWidth": 0 if panel.stacked else 2,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if panel.stacked else "none"},
        "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
    }


def _mappings(panel: Panel) -> list[Json]:
    if not panel.words:
        return []
    options = {value: {"index": index, "text": text} for index, (value, text) in enumerate(panel.words.items())}
    return [{"options": options, "type": "value"}]


def _overrides(panel: Panel) -> list[Json]:
    if panel.kind == "heatmap" or (panel.kind == "stat" and panel.text == "value"):
        return []
    looks = {name: look for query in panel.queries for name, look in known(query)}
    return [_override(name, look, panel) for name, look in looks.items()]


def _override(name: str, look: Look, panel: Panel) -> Json:
    properties: list[Json] = [{"id": "color", "value": {"fixedColor": look.colour, "mode": "fixed"}}]
    if panel.kind == "timeseries" and look.line != "solid":
        properties.append({"id": "custom.lineStyle", "value": {"dash": _DASHES[look.line], "fill": look.line}})
    return {"matcher": {"id": "byName", "options": name}, "properties": properties}


def _options(panel: Panel) -> Json:
    match panel.kind:
        case "timeseries":
            return {
                "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case "stat":
            return {
                "colorMode": "value",
                "graphMode": "none" if panel.text == "name" else "area",
                "justifyMode": "auto",
                "orientation": "auto",
                "reduceOptions": _LAST,
                "textMode": panel.text,
                "wideLayout": True,
            }
        case "bargauge":
            return {
                "displayMode": "basic",
                "minVizHeight": 10,
                "minVizWidth": 0,
                "namePlacement": "auto",
                "orientation": "horizontal",
                "reduceOptions": _LAST,
                "showUnfilled": True,
                "sizing": "auto",
                "valueMode": "color",
            }
        case "heatmap":
            return {
                "calculate": False,
                "cellGap": 1,
                "color": {
                    "exponent": 0.5,
                    "fill": PLAIN,
                    "mode": "scheme",
                    "reverse": False,
                    "scale": "exponential",
                    "scheme": "Viridis",
                    "steps": 64,
                },
                "exemplars": {"color": "rgba(255,255,255,0.7)"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": True},
                "rowsFrame": {"layout": "auto"},
                "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
                "yAxis": {"axisPlacement": "left", "reverse": False, "unit": panel.unit},
            }
        case "text":
            return {"code": {"language": "plaintext"}, "content": panel.content, "mode": "markdown"}


def _events() -> list[tuple[str, str, str, str]]:
    return [(each.name, each.expr, each.text, each.colour) for each in ANNOTATIONS]


def _annotation(name: str, expr: str, text: str, colour: str) -> Json:
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": expr,
        "iconColor": colour,
        "name": name,
        "step": "1m",
        "titleFormat": name,
        "textFormat": text,
    }


def _link(board: Dashboard) -> Json:
    return {
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "tags": [],
        "targetBlank": False,
        "title": board.title.removeprefix("inferq: "),
        "tooltip": board.description,
        "type": "link",
        "url": f"/d/{board.uid}",
    }


def _variables() -> list[Json]:
    return [
        {
            "hide": 0,
            "label": "Data source",
            "name": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "type": "datasource",
        },
        _variable("job", 'label_values({__name__=~"inferq_build_info|flower_worker_online"}, job)'),
        _variable(
            "instance", 'label_values({__name__=~"inferq_build_info|flower_worker_online", job=~"$job"}, instance)'
        ),
        _variable("model", "label_values(inferq_queue_depth, model)"),
        _variable("priority", "label_values(inferq_queue_depth, priority)"),
    ]


def _variable(name: str, query: str) -> Json:
    return {
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "datasource": DATASOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": True,
        "label": name.title(),
        "multi": True,
        "name": name,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "type": "query",
    }
