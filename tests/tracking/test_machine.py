"""What a host says of itself."""

import os

import torch

from alexvgg.tracking.machine import Load, by_host, by_node, describe

CPU = torch.device("cpu")


def test_this_host_is_described() -> None:
    found = describe(CPU)
    assert found["cores"] == os.cpu_count()
    assert found["memory_gib"] > 0
    assert found["gpu"] is None


def test_loads_are_shares_and_rates() -> None:
    load = Load(CPU)
    sum(range(2_000_000))
    found = load.read()
    assert set(found) == {
        "cpu_utilization_percentage", "system_memory_usage_percentage", "network_receive_megabytes_per_s",
    }  # fmt: skip
    assert 0 <= found["cpu_utilization_percentage"] <= 100
    assert 0 < found["system_memory_usage_percentage"] < 100
    assert found["network_receive_megabytes_per_s"] >= 0


def test_hosts_are_listed_once_in_the_order_of_ranks() -> None:
    machines = [{"host": h, "cores": 2} for h in ("b", "b", "a")]
    assert by_host(machines) == [{"host": "b", "cores": 2, "ranks": 2}, {"host": "a", "cores": 2, "ranks": 1}]
    loads = [("b", {"cpu": 1.0}), ("b", {"cpu": 9.0}), ("a", {"cpu": 2.0})]
    assert by_node(loads) == {"system/node-1/cpu": 1.0, "system/node-2/cpu": 2.0}
