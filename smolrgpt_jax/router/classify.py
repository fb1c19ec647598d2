"""The router at work: texts to categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.router.hf_folder import read_longformer
from smolrgpt_jax.router.longformer import LongformerConfig, bind
from smolrgpt_jax.router.texts import KIND_FIELD, TOKENIZER_FILE, RouterTokenizer, pad_rows, read_tokenizer_files

BATCH = 32  # texts


class Router:
    """Texts to categories.

    kind: "question" or "answer", the texts it was trained on, "" if nobody said; truncated: number of texts so far that were
    longer than the model's positions and were cut.
    """

    def __init__(
        self,
        config: LongformerConfig,
        params: Mapping[str, Any],
        tokenizer: RouterTokenizer,
        kind: str = "",
        batch: int = BATCH,
    ):
        self.config, self.kind, self.truncated = config, kind, 0
        self._params, self._tokenizer, self._batch = jax.device_put(dict(params)), tokenizer, batch
        self._forward = jax.jit(lambda p, tokens, mask: bind(config, p)(tokens, mask)["logits"])

    def logits(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """float32[len(texts), labels]. Texts are taken in the order of their lengths, so that little is padded."""
        rows, truncated = self._tokenizer.encode(texts)
        self.truncated += truncated
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        result = np.empty((len(rows), len(self.config.labels)), np.float32)
        for begin in tqdm(range(0, len(rows), self._batch), desc="router", unit=" batches", disable=not progress):
            chosen = order[begin : begin + self._batch]
            # Rows of padding fill the last batch, so that every batch of a length has one shape.
            filled = [rows[i] for i in chosen] + [[]] * (self._batch - len(chosen))
            logits = self._forward(self._params, *pad_rows(filled, self.config.longest, self.config.pad_id))
            result[chosen] = np.asarray(logits)[: len(chosen)]
        return result

    def categories(self, texts: Sequence[str], *, progress: bool = False) -> list[str]:
        """The category of each text."""
        return [self.config.labels[i] for i in np.argmax(self.logits(texts, progress=progress), axis=-1)]


def load_router(folder: str | Path) -> Router:
    """Loads a router from a Hugging Face folder of LongformerForSequenceClassification with its tokenizer.json.

    Raises CheckpointError for a folder that holds no such model, DataError for its tokenizer, and for labels that are not the
    benchmark's categories.
    """
    folder = Path(folder)
    config, params, values = read_longformer(folder)
    if not set(config.labels) <= set(WAREHOUSE_CATEGORIES):
        raise DataError(
            f"{folder}: the labels are {', '.join(config.labels)}, expected some of {', '.join(WAREHOUSE_CATEGORIES)}"
        )
    text = read_tokenizer_files(folder)[TOKENIZER_FILE]
    try:
        tokenizer = RouterTokenizer(text, config.longest, config.vocab_size)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    return Router(config, params, tokenizer, str(values.get(KIND_FIELD, "")))
