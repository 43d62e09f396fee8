"""The dashboards, one module each."""

from grafana.boards import admission, engine, latency, overview, queue, webhooks, workers

#: In the order in which one looks.
BOARDS = tuple(module.BOARD for module in (overview, queue, latency, admission, engine, webhooks, workers))
