"""Alert rules and dashboard speak of metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.serving.api.meters import Meters
from coordinator.serving.observed import Observed

DEPLOY = Path(__file__).parents[2] / "deploy"
NUMBERS = ("oldest_due_s", "stale_shards", "mask_lag_s", "replicas", "generation", "epoch")


def exported() -> set[str]:
    meters = Meters()
    meters.note("GET", "/v1/predict", 200, 0.1)
    office: dict[str, Any] = dict.fromkeys(NUMBERS, 1) | Observed().to_json()
    office |= {"queue_depth": {"failed": 1}, "deliveries": {"dead": 1}}
    text = meters.text(office).decode()
    return set(re.findall(r"^(unweave_\w+)", text, re.MULTILINE))


def alerts() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]:
        yield from group["rules"]


def panels() -> list[dict[str, Any]]:
    return list(json.loads((DEPLOY / "grafana.json").read_text())["panels"])


@pytest.mark.parametrize("rule", list(alerts()), ids=lambda rule: rule["alert"])
def test_an_alert_watches_metrics_that_are_exported(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"unweave_\w+", rule["expr"]))

    assert named and named <= exported()
    assert rule["labels"]["severity"] in ("page", "warn") and rule["annotations"]["summary"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_draws_metrics_that_are_exported(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        named = set(re.findall(r"unweave_\w+", target["expr"]))
        assert named and named <= exported()


def test_the_serve_configuration_is_one_that_the_application_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    from coordinator.serving.deployment import Served

    found = ServeDeploySchema.model_validate(yaml.safe_load((DEPLOY / "serve.yaml").read_text()))

    (application,) = found.applications
    assert application.import_path == "coordinator.serving.deployment:app"
    assert Served.model_validate(application.args).replicas == 2
