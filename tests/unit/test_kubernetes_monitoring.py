"""What Prometheus and Grafana are given on Kubernetes: made from the repository, and with the names it knows."""

import json
import re

import pytest
import yaml

from deploy.kubernetes.rules import RULES, replaced, written
from tests.kubernetes import DIRECTORY, containers, of_kind, overlay, own_container, paths, pods, selects
from tests.processes import ROOT


def test_flower_lets_nobody_past_its_proxy_but_prometheus() -> None:
    config = (DIRECTORY / "base" / "nginx.conf").read_text()
    pod = pods(overlay("gpu-t4"))["flower"]
    proxy, flower = containers(pod)["proxy"], containers(pod)["flower"]
    (mapped,) = [one["configMap"]["name"] for one in pod["spec"]["volumes"] if "configMap" in one]
    assert of_kind(overlay("gpu-t4"), "ConfigMap")[mapped]["data"] == {"nginx.conf": config}
    assert f"listen {proxy['ports'][0]['containerPort']};" in config
    assert f"proxy_pass http://127.0.0.1:{flower['ports'][0]['containerPort']};" in config
    (closed,) = re.findall(r"location ~ (\S+) \{ return 404; \}", config)
    for path in paths("flower"):
        assert re.search(closed, path)
    assert not re.search(closed, "/flower/tasks")
    (service,) = [
        one for one in of_kind(overlay("gpu-t4"), "Service").values() if one["metadata"]["name"] == "inferq-flower"
    ]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [proxy["ports"][0]["name"]]


def test_what_is_made_from_the_repository_is_current() -> None:
    for path, text in written().items():
        assert path.read_text() == text, "python -m deploy.kubernetes"
    groups = yaml.safe_load(RULES.read_text())["groups"]
    (rule,) = of_kind(overlay("gpu-t4"), "PrometheusRule").values()
    assert rule["spec"]["groups"] == groups
    with pytest.raises(ValueError, match="Nobody"):
        replaced(groups, [{"name": "inferq-queue", "rules": [{"alert": "Nobody"}]}])


def test_what_is_scraped_has_the_names_that_rules_know() -> None:
    documents = overlay("gpu-t4")
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    known = {job["job_name"]: job for job in config["scrape_configs"] if job["job_name"] != "prometheus"}
    found = {}
    for monitor in of_kind(documents, "PodMonitor").values():
        (component,) = [one for one, pod in pods(documents).items()
                        if selects(monitor["spec"]["selector"], pod["metadata"]["labels"])]  # fmt: skip
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        ports = {port["name"]: port["containerPort"] for port in own_container("gpu-t4", component)["ports"]}
        assert endpoint["path"] in paths(component)
        assert endpoint["port"] in ports
        assert endpoint["interval"] == config["global"]["scrape_interval"]
        (named,) = [one["replacement"] for one in endpoint["relabelings"] if one["targetLabel"] == "job"]
        found[named] = endpoint
        assert ("authorization" in endpoint) == ("authorization" in known[named])
        assert endpoint["path"] == known[named].get("metrics_path", "/metrics")
    assert set(found) == set(known)


def test_every_dashboard_is_there_and_small_enough_to_apply() -> None:
    boards = {path.name: path.read_text() for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
    found: dict[str, str] = {}
    for one in of_kind(overlay("gpu-t4"), "ConfigMap").values():
        if one["metadata"]["labels"].get("grafana_dashboard") == "1":
            found |= one["data"]
            # What `kubectl apply` writes into an annotation, which may have 256 KiB.
            assert len(json.dumps(one)) < 200_000
    assert found == boards
