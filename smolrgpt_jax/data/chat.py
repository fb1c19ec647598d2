"""The chat format: conversations <-> token ids.

    <|im_start|>user\\n + T image tokens + question + <|im_end|>\\n
    <|im_start|>assistant\\n + answer + <|im_end|>\\n

Every header is tokenised apart from the text that follows it, so the ids of a generation prompt are always a prefix of the ids of the
whole conversation.
"""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import AddedToken

from smolrgpt_jax.data.records import MASK, WAREHOUSE_CATEGORIES, Question
from smolrgpt_jax.data.trained_on import TrainedOn
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import model_folder, read_json, results_folder, stand_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Else transformers says that PyTorch is missing, which nothing that is taken from it here needs.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

IMAGE_TOKEN, MASK_RGB_TOKEN, MASK_DEPTH_TOKEN = EXTRA_TOKENS = ("<|image|>", "<mask_rgb>", "<mask_depth>")
START, END = "<|im_start|>", "<|im_end|>"
FORMAT_FILE = "chat_format.json"  # beside tokenizer.json, only where the format differs from the published one
ANSWER_TOKENS = 120  # of an answer, at most, in the published model
IGNORE = -100  # the label of tokens without loss
# What is fetched of a model on the hub.
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", FORMAT_FILE)
# The closing of an answer is its normalised value once more, for programs to read: "... to the transporter.\nAnswer: 2".
CLOSING = "\nAnswer:"  # between the free text and " value"
DECIMALS = 2  # of metres


def closing_value(category: str, value: str | float) -> str:
    """How a value is written after `CLOSING`: metres with two decimals, anything else as it is."""
    return f" {value:.{DECIMALS}f}" if category == "distance" else f" {value}"


def closed_turns(question: Question) -> list[str]:
    """`question.turns`, the answer followed by the closing where it has a value of a category that is scored by it."""
    turns = question.turns
    answer, value = question.answer, question.normalized_answer
    if answer is None or value is None or question.category not in WAREHOUSE_CATEGORIES:
        return turns
    return [*turns[:-1], answer.rstrip() + CLOSING + closing_value(question.category, value)]


def read_closing(category: str, text: str) -> tuple[str, str | int | float | None]:
    """Returns the free text of a generated answer and the value that it is closed with, None if it is not.

    Raises ValueError for a value that `closing_value` does not write.
    """
    free, mark, value = text.rpartition(CLOSING)
    # An answer that is nothing but the closing has lost its line break with the surrounding spaces.
    if not mark and text.startswith(CLOSING.strip()):
        mark, value = CLOSING, text[len(CLOSING.strip()) :]
    if not mark:
        return text, None
    value = value.strip()
    if category == "left_right" and value not in ("left", "right"):
        raise ValueError(f"{value!r} is neither left nor right")
    read = {"left_right": str, "distance": float}.get(category, int)
    return free.strip(), read(value)


@dataclasses.dataclass(frozen=True)
class ChatFormat:
    """How a model reads and writes, where it is not the published model's way."""

    # The number of every region stands before its tokens, so that an answer can copy "[Region 2]" instead of counting masks.
    region_names: bool = False
    closing_answer: bool = False  # training answers end with their normalised value, see `closed_turns`
    answer_tokens: int = ANSWER_TOKENS  # that an answer may take, its end included
    trained_on: TrainedOn | None = None  # what it was shown so far, None where that is not known

    @classmethod
    def load(cls, file: Path) -> "ChatFormat":
        """Reads FORMAT_FILE; where there is none, all is as published. Raises DataError for one that holds anything else."""
        values = read_json(file) if file.exists() else {}
        seen = values.pop("trained_on", None) if isinstance(values, dict) else None
        if _fits(cls, values) and values.get("answer_tokens", 1) > 0 and (seen is None or _fits(TrainedOn, seen)):
            return cls(**values, trained_on=seen and TrainedOn(**seen))
        switches = '"region_names": true or false, "closing_answer": true or false'
        number = '"answer_tokens": a positive whole number, "trained_on": what a training wrote'
        raise DataError(f"{file} is no chat format: it may hold {switches}, {number}, nothing else")

    def differences(self) -> dict[str, Any]:
        """The fields that are not as published, as JSON has them."""
        return {name: v for name, v in dataclasses.asdict(self).items() if v != getattr(ChatFormat, name)}

    def turns(self, question: Question, with_answer: bool = True) -> list[str]:
        """The texts of a question's user and assistant in turn, as the model gets them; the user's with one "<mask>" per region.

        Without the answer they end with the user's: a generation prompt.
        """
        turns = closed_turns(question) if self.closing_answer else question.turns
        if not with_answer and question.answer is not None:
            turns = turns[:-1]
        if self.region_names:
            number = itertools.count()
            turns[::2] = [re.sub(MASK, lambda mark: f"{next(number)}{mark[0]}", text) for text in turns[::2]]
        return turns


def _fits(kind: type, values: object) -> bool:
    """Whether values are fields of a dataclass, of the types of its defaults."""
    return isinstance(values, dict) and all(type(getattr(kind, name, None)) is type(v) for name, v in values.items())


class ChatTokenizer:
    """A tokenizer with SmolLM2's structure, the three tokens of SmolRGPT and the chat format."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", format: ChatFormat = ChatFormat()):
        """Wraps a tokenizer and adds the extra tokens it does not have yet.

        Raises DataError: the tokenizer lacks the chat format's own tokens.
        """
        known = tokenizer.get_vocab()
        missing = [token for token in (START, END) if token not in known]
        if missing:
            raise DataError(f"tokenizer {tokenizer.name_or_path!r} lacks {' and '.join(missing)}")
        # normalized=False and no stripping: the tokens split the text exactly where they stand.
        extra = [token for token in EXTRA_TOKENS if token not in known]
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in extra])
        tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = START, END, END
        self.format = format  # how the model reads and writes
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        # Of the tokens whose embedding is replaced, and of "<|im_end|>", which is the padding too, as in the published model.
        ids: list[Any] = [self._backend.token_to_id(token) for token in (*EXTRA_TOKENS, END)]
        self.image_id, self.mask_rgb_id, self.mask_depth_id, self.eos_id = map(int, ids)
        self.pad_id = self.eos_id
        self.vocab_size = self._backend.get_vocab_size(with_added_tokens=True)  # with the three extra tokens
        self.longest_token = max(map(len, known))  # in characters
        self._user = self.tokens(f"{START}user\n")
        self._assistant = self.tokens(f"{START}assistant\n")

    @classmethod
    def load(cls, name: str | Path) -> "ChatTokenizer":
        """Loads a folder with tokenizer.json and FORMAT_FILE, or a model id of the Hugging Face hub.

        The tokenizer's own file is taken as it is: transformers' AutoTokenizer would rebuild some tokenizers from their class and
        lose SmolLM2's splitting of digits.

        Raises DataError: there is no such tokenizer.
        """
        folder = model_folder(str(name), "tokenizer", FILES)
        chat_format = ChatFormat.load(folder / FORMAT_FILE)
        if not (folder / "tokenizer.json").is_file():
            raise DataError(f"tokenizer {str(name)!r} cannot be loaded (it has no tokenizer.json)")
        try:
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
        except Exception as error:  # of many classes, as what the files hold is taken for granted there
            reason = stand_in(folder / "tokenizer.json") or " ".join(f"{type(error).__name__}: {error}".split())
            raise DataError(f"tokenizer {str(name)!r} cannot be loaded ({reason[:500]})") from error
        return cls(tokenizer, chat_format)

    def with_format(self, **changes: Any) -> "ChatTokenizer":
        """The same tokenizer with another format."""
        return type(self)(self._tokenizer, dataclasses.replace(self.format, **changes))

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer, extra tokens included, so that `load` returns an equal one."""
        with results_folder(folder, own=(FORMAT_FILE,)) as aside:
            self._tokenizer.save_pretrained(aside)
            # transformers 5 writes a class name that 4, which the PyTorch release uses, lacks.
            config = aside / "tokenizer_config.json"
            values = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
            config.write_text(json.dumps(values, indent=2) + "\n")
            if differences := self.format.differences():
                (aside / FORMAT_FILE).write_text(json.dumps(differences) + "\n")

    def prefix(self, image_tokens: int) -> np.ndarray:
        """Returns the start of every question, int32[N]: user header and image tokens."""
        return np.array(self._user + [self.image_id] * image_tokens, np.int32)

    def question(self, prompt: str, answer: str | None = None) -> tuple[np.ndarray, int]:
        """Tokenises what follows the picture's prefix, of one question with a "<mask>" per region.

        Without an answer it is a generation prompt. Returns ids int32[N] as `conversations`, and the number of ids before the answer.
        """
        ((ids, counted),) = self.conversations([self.format.turns(Question("", "", prompt, answer, None))])
        return ids, int(np.count_nonzero(~counted))

    def conversations(self, conversations: Sequence[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokenises what follows the picture's prefix, of many conversations (see `ChatFormat.turns`) at once, in parallel.

        Returns:
          For each conversation ids int32[N], the assistant's header included, and counted bool[N], True for the tokens of an answer
          and of its end, which training counts. `prefix` + ids are the ids of the whole conversation.
        """
        pair = MASK_RGB_TOKEN + MASK_DEPTH_TOKEN
        said = [(index, text) for turns in conversations for index, text in enumerate(turns)]
        texts = [f"{text if index % 2 else text.replace(MASK, pair)}{END}\n" for index, text in said]
        known = dict.fromkeys(texts, [0])  # data sets say much again and again
        known = dict(zip(known, self._batch(list(known))))
        bodies = map(known.__getitem__, texts)
        tokenised = []
        for turns in conversations:
            parts = [next(bodies) for _ in turns]
            parts[::2] = [(self._user if i else []) + part + self._assistant for i, part in enumerate(parts[::2])]
            counted = np.repeat(np.arange(len(parts)) % 2 == 1, [len(part) for part in parts])
            tokenised.append((np.array([id for part in parts for id in part], np.int32), counted))
        return tokenised

    def fingerprint(self) -> str:
        """A text that tells all that decides which ids `conversations` gives from other tokenizers."""
        return f"{tokenizers.__version__} {self._backend.to_str()} {dataclasses.replace(self.format, trained_on=None)}"

    def tokens(self, text: str) -> list[int]:
        """Returns the ids of a text, special tokens included."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Returns the characters (begin, end) of a text that each of its `tokens` stands for."""
        return self._backend.encode(text, add_special_tokens=False).offsets

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the text of generated ids up to the first eos, without surrounding spaces."""
        text = itertools.takewhile(lambda id: id != self.eos_id, np.asarray(ids).tolist())
        return self._backend.decode(list(text), skip_special_tokens=True).strip()

    def _batch(self, texts: Sequence[str]) -> Iterator[list[int]]:
        # In parts, because the library's own result per text is a hundred times larger than the ids.
        for begin in range(0, len(texts), 4096):
            part = list(texts[begin : begin + 4096])
            yield from (e.ids for e in self._backend.encode_batch_fast(part, add_special_tokens=False))
