"""How well a model's decoder still knows plain language: perplexity of prose that no training here has."""

from pydoc_data.topics import topics
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from smolrgpt_jax.data.chat import ChatTokenizer
    from smolrgpt_jax.model import Model

ABOUT = "Python's reference manual, as the interpreter brings it"
TOKENS = 16_384  # of the text, from its start
WINDOW = 256  # tokens that are read together, of which the first is given
ROWS = 8  # windows of a forward pass


def prose() -> str:
    """The chapters of the reference manual in alphabetical order."""
    return "\n".join(topics[name] for name in sorted(topics))


def perplexity(model: "Model", tokenizer: "ChatTokenizer", text: str, tokens: int = TOKENS) -> float:
    """exp of the mean loss of the first `tokens` tokens of a text, in windows that are read one by one, without a picture.

    Raises ValueError for a text of less than one window.
    """
    import jax
    import jax.numpy as jnp

    from smolrgpt_jax.models.smolrgpt import loss_sums

    ids = np.asarray(tokenizer.tokens(text), np.int32)[:tokens]
    windows = ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW)
    if not len(windows):
        raise ValueError(f"the text has {len(ids)} tokens, perplexity takes windows of {WINDOW}")
    side, summed = model.config.vision.image_size, jax.jit(loss_sums)
    total, nothing = 0.0, np.full((1, 1), -100, np.int32)
    for batch in np.array_split(windows, -(-len(windows) // ROWS)):
        found = model.forward(batch, np.ones_like(batch), np.zeros((len(batch), side, side, 3), np.float32))
        targets = np.concatenate([batch[:, 1:], np.repeat(nothing, len(batch), axis=0)], axis=1)
        total += float(np.asarray(summed(jnp.asarray(found["logits"]), targets)[0]).sum(dtype=np.float64))
    return float(np.exp(total / (windows.size - len(windows))))
