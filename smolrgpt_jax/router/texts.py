"""Texts for the router: read from annotation files, tokenised, padded to few lengths.

A Longformer folder carries its tokenizer as tokenizer.json, which is read as it stands: transformers' AutoTokenizer would rebuild
some tokenizers from their class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, record_id
from smolrgpt_jax.data.sources.collect import chat_texts, split_turns
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

TEXT_KINDS = ("question", "answer")
KIND_FIELD = "router_text"  # of a router's config.json: which kind it was trained on
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
# What Hugging Face folders hold for a tokenizer; all but the first only serve transformers.
TOKENIZER_FILES = (
    TOKENIZER_FILE,
    CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
SHORTEST = 32  # tokens; fewer would only make more shapes to compile


@dataclass(frozen=True)
class RouterText:
    """One text to classify; category: "" where its record names none."""

    id: str
    text: str
    category: str


def read_router_texts(file: Path, kind: str, *, need_category: bool = True) -> list[RouterText]:
    """Reads the questions or the answers of an annotation file in the warehouse's format; neither pictures nor masks.

    kind: "question" or "answer", of the last turn. Raises DataError naming the file and the record for one that cannot be used,
    without category too if it is needed, and for a file without records.
    """
    texts = []
    for index, record in enumerate(read_json(file, list)):
        try:
            if not isinstance(record, dict):
                raise ValueError(f"is a {type(record).__name__}, expected an object")
            name = record_id(record.get("id"))
            _, question, answer = split_turns(chat_texts(record.get("conversations")))
            text = question if kind == "question" else answer
            if not text:
                raise ValueError(f"has no {kind}")
            category = record.get("category") or ""
            if category not in WAREHOUSE_CATEGORIES and (category or need_category):
                raise ValueError(f"has category {category!r}, expected one of {', '.join(WAREHOUSE_CATEGORIES)}")
        except ValueError as error:
            known = record.get("id") if isinstance(record, dict) else None
            where = f"record {known!r}" if known else f"record number {index}"
            raise DataError(f"{file}: {where}: {error}") from error
        texts.append(RouterText(name, text, category))
    if not texts:
        raise DataError(f"{file} holds no records")
    return texts


class RouterTokenizer:
    """Texts to token ids with the special tokens around them, as the folder's tokenizer.json has it."""

    def __init__(self, text: str, longest: int, vocab_size: int | None = None):
        """text: content of tokenizer.json; longest: tokens after which a text is cut; vocab_size: of the model.

        Raises DataError for a text that is no tokenizer, for no room between the special tokens and for ids that the model lacks.
        """
        try:
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises no other class
            raise DataError(f"{TOKENIZER_FILE} holds no tokenizer ({error})") from error
        special = self._tokenizer.num_special_tokens_to_add(False)
        if special >= longest:
            raise DataError(f"{longest} tokens have no room for a text between {special} special tokens")
        if vocab_size is not None and self.vocab_size > vocab_size:
            raise DataError(f"the tokenizer has {self.vocab_size} tokens, the model's vocabulary only {vocab_size}")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(longest)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def token_id(self, token: str) -> int:
        return self._tokenizer.token_to_id(token)

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Returns the ids of every text and how many texts were cut.

        A text is cut as transformers' tokenizers do it: its beginning is kept, and the closing special token still closes it.
        """
        encodings = self._tokenizer.encode_batch(list(texts))
        return [encoding.ids for encoding in encodings], sum(bool(encoding.overflowing) for encoding in encodings)


def read_tokenizer_files(folder: Path) -> dict[str, str]:
    """{file name: text} of a Longformer folder's tokenizer; raises DataError without a tokenizer.json."""
    if not (folder / TOKENIZER_FILE).is_file():
        raise DataError(
            f"{folder} holds no {TOKENIZER_FILE}; transformers writes one with save_pretrained of a fast tokenizer"
        )
    try:
        return {n: (folder / n).read_text(encoding="utf-8") for n in TOKENIZER_FILES if (folder / n).is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the tokenizer in {folder} cannot be read ({error})") from error


def classifier_tokenizer_files(folder: Path, begin: str, end: str, pad: str) -> dict[str, str]:
    """The tokenizer of a chat model as that of a classifier: every text between `begin` and `end`, padded with `pad`.

    Padding must be a token that texts do not hold, as Longformer counts positions by it. Raises DataError.
    """
    files = read_tokenizer_files(folder)
    tokenizer = Tokenizer.from_str(files[TOKENIZER_FILE])
    ids = {token: tokenizer.token_to_id(token) for token in (begin, end, pad)}
    if None in ids.values():
        raise DataError(f"the tokenizer in {folder} lacks one of {', '.join(ids)}")
    tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, ids[begin]), (end, ids[end])]
    )
    config = json.loads(files.get(CONFIG_FILE, "{}"))
    config |= {"bos_token": begin, "cls_token": begin, "eos_token": end, "sep_token": end, "pad_token": pad}
    return {TOKENIZER_FILE: tokenizer.to_str(pretty=True), CONFIG_FILE: json.dumps(config, indent=2) + "\n"}


def pad_rows(rows: Sequence[Sequence[int]], longest: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids padded on the right -> tokens int32[B, S], attention mask bool[B, S].

    S is the next of 32, 64, 128, ..., at most `longest`: few lengths are few compilations.
    """
    lengths = np.array([len(ids) for ids in rows])
    length = min(max(SHORTEST, 1 << (int(lengths.max()) - 1).bit_length()), longest)
    tokens = np.full((len(rows), length), pad_id, np.int32)
    for row, ids in zip(tokens, rows):
        row[: len(ids)] = ids
    return tokens, np.arange(length) < lengths[:, None]
