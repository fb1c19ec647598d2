"""The tables of chips and TPU slices against numbers of the vendor's documentation, typed in by hand."""

from __future__ import annotations

import pytest

from smolrgpt_jax.chips import SLICES, find_slice, peak_flops
from smolrgpt_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "accelerator_type", "chips", "hosts", "label", "machine_type"),
    [
        ("v4:2x2x1", "v4-8", 4, 1, "tpu-v4-podslice", "ct4p-hightpu-4t"),
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
def test_names_and_sizes(name, accelerator_type, chips, hosts, label, machine_type):
    found = find_slice(name)
    assert (found.accelerator_type, found.chips, found.hosts) == (accelerator_type, chips, hosts)
    assert (found.label, found.machine_type) == (label, machine_type)
    assert found.topology == name.partition(":")[2] and found.chip.flops > 1e14


def test_accelerator_types_are_unique():
    assert len({s.accelerator_type for s in SLICES.values()}) == len(SLICES)


@pytest.mark.parametrize(
    ("name", "nearest"), [("v5e:16x15", "v5e:16x16"), ("v5p:4x4", "v5p:4x4x4"), ("v6:8x8", "v6e:8x8")]
)
def test_an_unknown_topology_names_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=f"no topology {name}; nearest: .*{nearest}"):
        find_slice(name)


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H200", 989e12),
        ("cpu", None),
    ],
)
def test_chips_are_known_by_the_longest_beginning_of_their_name(kind, peak):
    assert peak_flops(kind) == peak
