"""Eight of the warehouse benchmark's published records with their real masks, 2 to 13 regions each.

They are about the one record whose picture and depth are at hand (mirrored for every second question, turned upside down for
every second pair). SmolLM2's tokenizer is not at hand either: ids are those of the test suite's tokenizer, which has its
structure but 785 tokens; they are folded into smaller vocabularies, and the three tokens that stand for features take the last
three ids, as published.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.shared import left_padded
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.images import load_depth, load_rgb
from smolrgpt_jax.data.masks import RLE, decode
from smolrgpt_jax.errors import ConfigError
from smolrgpt_jax.files import read_json

DATA_FILES = Path(__file__).parents[1] / "tests" / "data_files"
QUESTIONS = 8


@dataclass(frozen=True)
class Conversations:
    """Left-padded questions with their answers.

    ids, attention_mask, targets: int32[B, S], targets -100 where there is no loss; prompts: the same without the answers, (ids,
    attention_mask) int32[B, P]; images, depths: float32[B, H, W, 3]; masks: B arrays uint8[1080, 1920, R].
    """

    ids: np.ndarray
    attention_mask: np.ndarray
    targets: np.ndarray
    prompts: tuple[np.ndarray, np.ndarray]
    images: np.ndarray
    depths: np.ndarray
    masks: list[np.ndarray]

    @property
    def pictures(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        return self.images, self.depths, self.masks

    def first(self, rows: int) -> Conversations:
        names = ("ids", "attention_mask", "targets", "images", "depths", "masks")
        return dataclasses.replace(self, **{name: getattr(self, name)[:rows] for name in names})


def read_conversations(config: SmolRGPTConfig) -> Conversations:
    """The eight questions, most regions first."""
    root = DATA_FILES / "real_warehouse"
    records = sorted(read_json(root / "records_with_masks.json", list), key=lambda r: -len(r["rle"]))[:QUESTIONS]
    tokenizer = ChatTokenizer.load(DATA_FILES / "text" / "tokenizer")
    vocab, pad = config.decoder.vocab_size, tokenizer.eos_id
    features = {tokenizer.image_id: vocab - 3, tokenizer.mask_rgb_id: vocab - 2, tokenizer.mask_depth_id: vocab - 1}
    if vocab < 32:
        raise ConfigError(f"a vocabulary of {vocab} tokens is too small for the questions")

    def fold(token: int) -> int:
        return features.get(token, token if token < vocab - 3 else 17 + token % (vocab - 20))

    whole, asked = [], []
    for record in records:
        user, assistant = (turn["value"] for turn in record["conversations"])
        rest, answer = tokenizer.question(user.replace("<image>", "").strip(), assistant)
        prefix = tokenizer.prefix(config.image_tokens)
        whole.append(np.array([fold(t) for t in (*prefix.tolist(), *rest.tolist())], np.int32))
        asked.append(len(prefix) + answer)
    ids, attention_mask = left_padded(whole, pad)
    targets = np.full_like(ids, -100)
    for row, (tokens, start) in enumerate(zip(whole, asked)):
        answer = tokens[start:]
        targets[row, -len(answer) - 1 : -1] = answer
    size = config.vision.image_size
    image = load_rgb(root / "val" / "images" / "000315.png", size)
    depth = load_depth(root / "val" / "depths" / "000315_depth.png", size)
    turns = [(slice(None, None, (-1) ** (i // 2)), slice(None, None, (-1) ** i)) for i in range(len(records))]
    prompts = left_padded([tokens[:start] for tokens, start in zip(whole, asked)], pad)
    images, depths = (np.stack([picture[turn] for turn in turns]) for picture in (image, depth))
    regions = [[RLE(*mask["size"], mask["counts"].encode()) for mask in record["rle"]] for record in records]
    masks = [np.stack([decode(region) for region in some], axis=-1) for some in regions]
    return Conversations(ids, attention_mask, targets, prompts, images, depths, masks)
