"""The router at work: texts are read from annotation files, tokenised, padded to few lengths and put into categories.

A Longformer folder carries its tokenizer as tokenizer.json, which is read as it stands: transformers' AutoTokenizer would rebuild
some tokenizers from their class.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from tqdm import tqdm

from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, record_id
from smolrgpt_jax.data.sources.collect import chat_texts, split_turns
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import JSON_KINDS, as_path, read_json

# JAX is imported by what runs a router: commands need only the texts to tell their options.
if TYPE_CHECKING:
    from smolrgpt_jax.router.longformer import LongformerConfig

TEXT_KINDS = ("question", "answer")
KIND_FIELD = "router_text"  # of a router's config.json: which kind it was trained on
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
# What Hugging Face folders hold for a tokenizer; all but the first only serve transformers.
TOKENIZER_FILES = [TOKENIZER_FILE, CONFIG_FILE]
TOKENIZER_FILES += ["special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"]
BATCH = 32  # texts
SHORTEST = 32  # tokens; fewer would only make more shapes to compile


@dataclass(frozen=True)
class RouterText:
    """One text to classify; category: "" where its record names none."""

    id: str
    text: str
    category: str


def read_router_texts(file: Path, kind: str, *, need_category: bool = True) -> list[RouterText]:
    """Reads the last questions or answers (`kind`) of an annotation file in the warehouse's format, without pictures and masks.

    Raises DataError naming the file and the record for one that cannot be used, and for a file without records.
    """
    texts = []
    for index, record in enumerate(read_json(file, list)):
        try:
            if not isinstance(record, dict):
                raise ValueError(f"is {JSON_KINDS[type(record)]}, expected {JSON_KINDS[dict]}")
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
        """text: content of tokenizer.json; longest: tokens after which a text is cut; vocab_size: of the model. Raises DataError."""
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

    def token_id(self, token: str) -> Any:
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
        how = "transformers writes one with save_pretrained of a fast tokenizer"
        raise DataError(f"{folder} holds no {TOKENIZER_FILE}; {how}")
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
    ends = [(begin, ids[begin]), (end, ids[end])]
    tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A {end}", special_tokens=ends)
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


class Router:
    """Texts to categories.

    kind: "question" or "answer", the texts it was trained on, "" if nobody said; truncated: number of texts so far that were
    longer than the model's positions and were cut.
    """

    def __init__(
        self, config: "LongformerConfig", params: Mapping[str, Any], tokenizer: RouterTokenizer, kind: str = ""
    ):
        import jax

        from smolrgpt_jax.router.longformer import bind

        self.config, self.kind, self.truncated = config, kind, 0
        self._params, self._tokenizer = jax.device_put(dict(params)), tokenizer
        self._forward = jax.jit(lambda p, tokens, mask: bind(config, p)(tokens, mask)["logits"])

    def logits(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """float32[len(texts), labels]. Texts are taken in the order of their lengths, so that little is padded."""
        rows, truncated = self._tokenizer.encode(texts)
        self.truncated += truncated
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        result = np.empty((len(rows), len(self.config.labels)), np.float32)
        for begin in tqdm(range(0, len(rows), BATCH), desc="router", unit=" batches", disable=not progress):
            chosen = order[begin : begin + BATCH]
            # Rows of padding fill the last batch, so that every batch of a length has one shape.
            filled = [rows[i] for i in chosen] + [[]] * (BATCH - len(chosen))
            logits = self._forward(self._params, *pad_rows(filled, self.config.longest, self.config.pad_id))
            result[chosen] = np.asarray(logits)[: len(chosen)]
        return result

    def categories(self, texts: Sequence[str], *, progress: bool = False) -> list[str]:
        return [self.config.labels[i] for i in np.argmax(self.logits(texts, progress=progress), axis=-1)]


def load_router(folder: str | Path) -> Router:
    """Loads a router from a Hugging Face folder of LongformerForSequenceClassification with its tokenizer.json.

    Raises CheckpointError for another folder, DataError for its tokenizer and for labels that are not the benchmark's categories.
    """
    from smolrgpt_jax.router.hf_folder import read_longformer

    folder = as_path(folder)
    config, params, values = read_longformer(folder)
    if not set(config.labels) <= set(WAREHOUSE_CATEGORIES):
        expected = ", ".join(WAREHOUSE_CATEGORIES)
        raise DataError(f"{folder}: the labels are {', '.join(config.labels)}, expected some of {expected}")
    text = read_tokenizer_files(folder)[TOKENIZER_FILE]
    try:
        tokenizer = RouterTokenizer(text, config.longest, config.vocab_size)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    return Router(config, params, tokenizer, str(values.get(KIND_FIELD, "")))
