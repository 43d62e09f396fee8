"""A whole inferq to which everything happens, under a real Prometheus: for pictures of dashboards, and for tests."""
