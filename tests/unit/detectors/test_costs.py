from __future__ import annotations

import json

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.detectors import DETECTORS
from forgery_det.detectors.costs import Cost, cost_of, measure_cost, published_size, read_costs, write_costs

COSTS = {"npr": Cost(12.5, 30_000_000), "safe": Cost(9.0, 25_000_000)}


def test_costs_survive_a_file(tmp_path):
    write_costs(tmp_path / "costs.json", COSTS)
    assert read_costs(tmp_path / "costs.json") == COSTS
    assert read_costs(tmp_path / "none.json") == {}


def test_costs_of_another_machine_are_not_shown(tmp_path):
    path = tmp_path / "costs.json"
    write_costs(path, COSTS)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"machine": content["machine"] | {"cpu_count": 1024}}))
    assert read_costs(path) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"costs": {}}'])
def test_a_damaged_file_is_explained(tmp_path, text):
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(ConfigError, match=r"Expected times of detectors in .*costs\.json.*Delete the file"):
        read_costs(tmp_path / "costs.json")


def test_a_cost_is_time_and_memory():
    cost = cost_of("npr", **DETECTORS.get("npr").tiny)
    assert cost.time_ms > 0
    assert cost.peak_bytes >= 0


def test_shapes_take_no_memory():
    detector = published_size("univfd", "meta")
    assert {parameter.device.type for parameter in detector.parameters()} == {"meta"}


@pytest.mark.slow
def test_memory_is_at_least_that_of_the_weights():
    n_bytes = 4 * sum(parameter.numel() for parameter in published_size("drct", "meta").parameters())
    cost = measure_cost("drct")
    assert n_bytes < cost.peak_bytes < 4 * n_bytes
