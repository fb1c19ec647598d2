"""Perplexity of a text: of a model that knows nothing, and of known losses."""

from __future__ import annotations

import numpy as np
import pytest

from configs import demo
from eval.scoring.perplexity import WINDOW, perplexity, prose
from smolrgpt_jax.data.chat import ChatTokenizer


class Known:
    """A model whose logit of the token that follows is by `lead` above all others."""

    def __init__(self, config, lead):
        self.config, self.lead = config, lead

    def forward(self, ids, mask, images):
        assert mask.all() and images.shape == (len(ids), 128, 128, 3) and not images.any()
        logits = np.zeros((*ids.shape, self.config.decoder.vocab_size), np.float32)
        rows, columns = np.indices(ids[:, :-1].shape)
        logits[rows, columns, ids[:, 1:]] = self.lead
        return {"logits": logits}


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer.load(demo.TOKENIZER)


@pytest.mark.parametrize("lead", [0.0, 3.0])
def test_of_a_known_lead_of_every_next_token(tokenizer, lead):
    from smolrgpt_jax.config import PRESETS

    config = PRESETS["demo"]
    words = config.decoder.vocab_size
    found = perplexity(Known(config, lead), tokenizer, prose(), tokens=5 * WINDOW + 7)
    assert found == pytest.approx((np.exp(lead) + words - 1) / np.exp(lead), rel=1e-5)


def test_a_text_shorter_than_a_window_is_told(tokenizer):
    from smolrgpt_jax.config import PRESETS

    with pytest.raises(ValueError, match="the text has 0 tokens, perplexity takes windows of 256"):
        perplexity(Known(PRESETS["demo"], 0.0), tokenizer, "")


def test_the_prose_is_english_of_some_length():
    text = prose()
    assert len(text) > 400_000 and text.count(" the ") > 3000
