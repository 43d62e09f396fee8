"""Grafana's dashboards as code: ``python -m grafana`` writes them, ``python -m grafana.preview`` draws them."""
