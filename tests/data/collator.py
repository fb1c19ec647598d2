"""What the PyTorch release makes of conversations, to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smolrgpt_jax.data.chat import IGNORE, IMAGE_TOKEN, ChatTokenizer


def spelled_out(tokenizer: ChatTokenizer, turns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """ids int32[N] and labels int32[N] of a conversation whose texts hold image and region tokens, message by message."""
    ids, counted = [], []
    for index, text in enumerate(turns):
        head = tokenizer.tokens("<|im_start|>assistant\n" if index % 2 else "<|im_start|>user\n")
        body = tokenizer.tokens(f"{text}<|im_end|>\n")
        ids += head + body
        counted += [False] * len(head) + [index % 2 == 1] * len(body)
    return np.array(ids, np.int32), shifted(np.array(ids, np.int32), np.array(counted))


def shifted(ids: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The id of the next token where that one is counted, else -100."""
    return np.append(np.where(counted[1:], ids[1:], IGNORE), IGNORE).astype(np.int32)


def collate(tokenizer: ChatTokenizer, conversations: Sequence[Sequence[str]], max_length: int) -> dict[str, np.ndarray]:
    """Rows padded on the left, made of what we train on; one that is too long is cut at its end and has no loss."""
    shape = (len(conversations), max_length)
    batch = {
        "input_ids": np.full(shape, tokenizer.pad_id, np.int32),
        "attention_mask": np.zeros(shape, np.int32),
        "labels": np.full(shape, IGNORE, np.int32),
    }
    for row, (user, *rest) in enumerate(conversations):
        prefix = tokenizer.prefix(user.count(IMAGE_TOKEN))
        user = user.replace(IMAGE_TOKEN, "").replace("<mask_rgb><mask_depth>", "<mask>")
        ((ids, counted),) = tokenizer.conversations([[user, *rest]])
        ids, counted = np.concatenate([prefix, ids]), np.concatenate([np.zeros(prefix.size, bool), counted])
        labels = shifted(ids, counted)
        if ids.size > max_length:
            ids, labels = ids[:max_length], np.full(max_length, IGNORE, np.int32)
        begin = max_length - ids.size
        batch["input_ids"][row, begin:] = ids
        batch["attention_mask"][row, begin:] = 1
        batch["labels"][row, begin:] = labels
    return batch
