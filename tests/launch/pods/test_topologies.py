"""The table of TPU slices against numbers of the vendor's documentation, typed in by hand."""

from __future__ import annotations

import pytest

from launch.pods.commands import LaunchError
from launch.pods.topologies import SLICES, find_slice


@pytest.mark.parametrize(
    ("name", "accelerator_type", "chips", "hosts", "gke_accelerator", "machine_type"),
    [
        ("v5e:2x2", "v5litepod-4", 4, 1, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
        ("v5e:2x4", "v5litepod-8", 8, 1, "tpu-v5-lite-podslice", "ct5lp-hightpu-8t"),
        ("v5e:4x4", "v5litepod-16", 16, 4, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
        ("v5e:16x16", "v5litepod-256", 256, 64, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
        ("v5p:2x2x1", "v5p-8", 4, 1, "tpu-v5p-slice", "ct5p-hightpu-4t"),
        ("v5p:2x4x4", "v5p-64", 32, 8, "tpu-v5p-slice", "ct5p-hightpu-4t"),
        ("v5p:4x4x4", "v5p-128", 64, 16, "tpu-v5p-slice", "ct5p-hightpu-4t"),
        ("v6e:2x4", "v6e-8", 8, 1, "tpu-v6e-slice", "ct6e-standard-8t"),
        ("v6e:8x8", "v6e-64", 64, 16, "tpu-v6e-slice", "ct6e-standard-4t"),
        ("v6e:16x16", "v6e-256", 256, 64, "tpu-v6e-slice", "ct6e-standard-4t"),
    ],
)
def test_names_and_sizes(name, accelerator_type, chips, hosts, gke_accelerator, machine_type):
    found = find_slice(name)
    assert (found.accelerator_type, found.chips, found.hosts) == (accelerator_type, chips, hosts)
    assert (found.gke_accelerator, found.machine_type) == (gke_accelerator, machine_type)
    assert found.topology == name.partition(":")[2]


def test_accelerator_types_are_unique():
    assert len({s.accelerator_type for s in SLICES.values()}) == len(SLICES)


@pytest.mark.parametrize(
    ("name", "nearest"), [("v5e:16x15", "v5e:16x16"), ("v5p:4x4", "v5p:4x4x4"), ("v6:8x8", "v6e:8x8")]
)
def test_an_unknown_topology_names_the_nearest(name, nearest):
    with pytest.raises(LaunchError, match=f"no topology {name}; nearest: .*{nearest}"):
        find_slice(name)
