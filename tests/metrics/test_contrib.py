"""The board, the alerts, the unit and the examples: what they name exists, and the tools accept them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lemond_adapter.service.config import PolicySection

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
RULES = CONTRIB / "prometheus" / "lemond-adapter.rules.yml"
BOARD = CONTRIB / "grafana" / "lemond-adapter.json"
UNIT = CONTRIB / "systemd" / "lemond-adapter.service"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)

# What Prometheus itself adds.
SCRAPE_LABELS = {"instance", "job"}
OF_PROMETHEUS = {"up"}

_NAME = re.compile(r"(?<![\w$\"])(up|process_\w+|lemond_adapter_\w+)\b(\{[^}]*\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPING = re.compile(r"\bby\s*\(([^)]*)\)")


def tool(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BOARD.read_text())
    return found


def board_queries() -> Iterator[str]:
    for panel in board()["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for variable in board()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def test_every_metric_and_label_in_use_exists(busy: Any, exposed: Any) -> None:
    assert alerts()
    queries = [*(rule["expr"] for rule in alerts()), *board_queries()]
    named = 0
    for query in queries:
        found = _NAME.findall(query)
        assert found, f"no metric in {query}"
        allowed = set(SCRAPE_LABELS)
        for name, matchers in found:
            if name in OF_PROMETHEUS:
                continue
            named += 1
            assert name in exposed.labels, f"{name} is not exposed, but used in {query}"
            labels = exposed.labels[name] | SCRAPE_LABELS
            allowed |= labels
            used = set(_MATCHER.findall(matchers))
            assert used <= labels, f"{name} has no {used - labels}, used in {query}"
        for group in _GROUPING.findall(query):
            wanted = {label.strip() for label in group.split(",")}
            assert wanted <= allowed, f"nothing has {wanted - allowed} in {query}"
    assert named > 60


@pytest.fixture
async def exposed(busy: Any, scrape: Any) -> Any:
    """The exposition after traffic and faults."""
    return await scrape(busy.url)


@needs_promtool
async def test_promtool_finds_nothing_to_say_about_the_exposition(busy: Any) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
        text = (await client.get(f"{busy.url}/metrics?hal0=1")).text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_promtool
def test_promtool_accepts_rules_and_scrape_configuration() -> None:
    assert f"{len(alerts())} rules found" in tool("promtool", "check", "rules", str(RULES))
    tool("promtool", "check", "config", str(RULES.with_name("prometheus.yml")))


@needs_promtool
def test_each_alert_fires_in_its_trouble_only() -> None:
    tested = yaml.safe_load(RULES.with_suffix(".test.yml").read_text())["tests"]
    assert [test["name"] for test in tested] == [rule["alert"] for rule in alerts()]
    for test in tested:
        cases = test["alert_rule_test"]
        assert {case["alertname"] for case in cases} == {test["name"]}
        assert [bool(case["exp_alerts"]) for case in cases] == [True, False]
    tool("promtool", "test", "rules", RULES.with_suffix(".test.yml").name, cwd=RULES.parent)


@needs_promtool
def test_the_boards_queries_are_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"q{index}", "expr": query.replace("$__rate_interval", "5m")}
        for index, query in enumerate(board_queries())
        if not query.startswith("label_values(")
    ]
    file = tmp_path / "board.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    assert f"{len(rules)} rules found" in tool("promtool", "check", "rules", "--lint=none", str(file))


def test_each_alert_has_its_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()], "one section each, in the order of the rules"
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_the_board_is_in_order() -> None:
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert at["x"] + at["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["targets"]
            sources = {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])}
            assert sources == {"${datasource}"}
    names = [variable["name"] for variable in board()["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "slot"]


def unit() -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings.setdefault(key, []).append(value)
    return settings


def test_the_unit_leaves_time_to_drain_and_processes_to_see() -> None:
    settings = unit()
    assert settings["Type"] == ["notify"]
    assert int(settings["TimeoutStopSec"][0]) > PolicySection().drain_timeout_s
    assert "ProtectProc" not in settings, "children must be visible in /proc"
    assert "PrivateUsers" not in settings, "and readable"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit_and_finds_it_tight(tmp_path: Path) -> None:
    command = f"ExecStart={sys.executable} -m lemond_adapter serve"
    text = re.sub(r"^ExecStart=.*$", command, UNIT.read_text(), flags=re.MULTILINE)
    file = tmp_path / UNIT.name
    file.write_text(text)
    said = tool("systemd-analyze", "verify", str(file))
    assert UNIT.name not in said, said
    rated = tool("systemd-analyze", "security", "--offline=true", "--threshold=25", str(file))
    assert "Overall exposure level" in rated


def test_the_examples_are_yaml_that_says_what_it_must() -> None:
    services = yaml.safe_load((CONTRIB / "compose" / "compose.yaml").read_text())["services"]
    adapter = services["adapter"]
    assert adapter["network_mode"] == adapter["pid"] == "service:lemond"
    assert int(adapter["stop_grace_period"].rstrip("s")) > PolicySection().drain_timeout_s
    for file in (CONTRIB / "grafana" / "provisioning").rglob("*.yml"):
        assert yaml.safe_load(file.read_text())["apiVersion"] == 1
