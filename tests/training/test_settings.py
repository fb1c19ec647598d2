from __future__ import annotations

import pytest

from smolrgpt_jax.training.settings import check_names, differences, plain


def test_differences_name_what_changes_the_computation_only():
    old = {"seed": 0, "keep": 1, "mesh": {"fsdp": 2}, "data": {"row_tokens": 8, "threads": 1}}
    new = {"seed": 1, "keep": 9, "mesh": {"fsdp": 4}, "data": {"row_tokens": 9, "threads": 2}, "steps": 3}
    assert differences(old, new) == [
        "data.row_tokens was 8, is 9",
        "seed was 0, is 1",
        "steps was None, is 3",
    ]
    assert differences(old, old) == []


def test_tuples_and_lists_compare_as_json_gives_them_back():
    assert plain({"a": (1, 2), 3: {"b": [(4,)]}}) == {"a": [1, 2], "3": {"b": [[4]]}}


@pytest.mark.parametrize(
    ("stage", "preset", "message"),
    [
        ("sfft", "demo", "config.stage 'sfft' is not one of backbone, "),
        ("sft", "huge", "config.model.preset 'huge' is not one of .*demo"),
    ],
)
def test_unknown_names_get_the_list(stage, preset, message):
    with pytest.raises(ValueError, match=message):
        check_names({"stage": stage, "model": {"preset": preset}})
