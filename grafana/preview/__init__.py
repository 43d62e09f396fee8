"""Pictures of the dashboards, drawn from a running Prometheus without Grafana."""

from grafana.preview.pages import draw

__all__ = ["draw"]
