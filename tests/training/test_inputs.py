"""What a run reads before its first step."""

from __future__ import annotations

import pytest

from configs.default import get_config
from smolrgpt_jax.data.tokenizer_files import tokenizer_files, tokenizer_from_files
from smolrgpt_jax.training.inputs import read_start


@pytest.mark.parametrize("closing_answer", [None, False, True])
def test_the_chat_format_comes_from_the_configuration(closing_answer):
    """And goes with the tokenizer into checkpoints; by default it is the published one."""
    config = get_config()
    config.tokenizer, config.model.preset = "configs/demo_tokenizer", "demo"
    if closing_answer is not None:
        config.data.closing_answer = closing_answer
    tokenizer = read_start(config.to_dict()).tokenizer
    assert tokenizer.closing_answer is bool(closing_answer)
    assert tokenizer_from_files(tokenizer_files(tokenizer)).closing_answer is bool(closing_answer)
