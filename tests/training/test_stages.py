from __future__ import annotations

import pytest

from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.training.stages import STAGES

PUBLISHED = {
    "connector_alignment": {"rgb_connector": 1e-4},
    "refiner_alignment": {"rgb_connector": 5e-5, "depth_connector": 5e-5, "refiners": 1e-4},
    "sft": dict.fromkeys(("rgb_connector", "depth_connector", "refiners", "decoder"), 5e-5),
    "mixed": dict.fromkeys(("rgb_connector", "depth_connector", "refiners", "decoder"), 5e-5),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_learning_rates(name):
    assert {g.name: g.peak for g in STAGES[name].groups if g.peak is not None} == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_parameter_belongs_to_a_group(name):
    for parameter in abstract_params(PRESETS["smolrgpt"]):
        STAGES[name].group_of(parameter)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_encoder_is_frozen_in_every_published_stage(name):
    assert not [p for p in STAGES[name].trained(abstract_params(PRESETS["demo"])) if p.startswith("vision_encoder")]


def test_a_rate_for_a_group_that_is_not_trained_is_an_error():
    with pytest.raises(ValueError, match="connector_alignment trains no group named 'decoder'"):
        STAGES["connector_alignment"].with_peaks({"decoder": 1e-3})
