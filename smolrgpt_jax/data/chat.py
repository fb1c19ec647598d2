"""The chat format: conversations <-> token ids.

    <|im_start|>user\\n + T image tokens + question + <|im_end|>\\n
    <|im_start|>assistant\\n + answer + <|im_end|>\\n

Every header is tokenised apart from the text that follows it, so the ids of a generation prompt
are always a prefix of the ids of the whole conversation.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import AddedToken, PreTrainedTokenizerFast

from smolrgpt_jax.data.records import MASK
from smolrgpt_jax.errors import DataError

IMAGE_TOKEN, MASK_RGB_TOKEN, MASK_DEPTH_TOKEN = "<|image|>", "<mask_rgb>", "<mask_depth>"
START, END = "<|im_start|>", "<|im_end|>"
FORMAT_FILE = "chat_format.json"  # beside tokenizer.json, only where the format differs from the published one
FORMAT = {  # what that file may hold
    "region_names": "true or false",
    "closing_answer": "true or false",
    "answer_tokens": "a positive whole number",
}
ANSWER_TOKENS = 120  # of an answer, at most, in the published model
IGNORE = -100  # the label of tokens without loss
# What is fetched of a model on the hub.
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", FORMAT_FILE)


class ChatTokenizer:
    """A tokenizer with SmolLM2's structure, the three tokens of SmolRGPT and the chat format.

    Attributes:
      image_id, mask_rgb_id, mask_depth_id: ids of the tokens whose embedding is replaced.
      eos_id, pad_id: both the id of "<|im_end|>", as in the published model.
      vocab_size: number of ids with the three extra tokens.
      region_names: whether the number of every region of a question is written before its tokens.
      closing_answer: whether answers end with their normalised value, see ``closing``.
      answer_tokens: tokens that an answer may take, its end included.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        region_names: bool = False,
        closing_answer: bool = False,
        answer_tokens: int = ANSWER_TOKENS,
    ):
        """Wraps a tokenizer and adds the extra tokens it does not have yet.

        Args:
          tokenizer: with SmolLM2's structure.
          region_names: write "2<mask_rgb><mask_depth>" for the third region of a question, so that an answer can copy the
            number "[Region 2]" instead of counting masks. Published checkpoints were trained without.
          closing_answer: end training answers with "\\nAnswer: left". Published checkpoints were trained without.
          answer_tokens: how long the answers are that the model was trained for.

        Raises:
          DataError: the tokenizer lacks the chat format's own tokens.
        """
        known = tokenizer.get_vocab()
        missing = [token for token in (START, END) if token not in known]
        if missing:
            raise DataError(f"tokenizer {tokenizer.name_or_path!r} lacks {' and '.join(missing)}")
        # normalized=False and no stripping: the tokens split the text exactly where they stand.
        tokenizer.add_tokens(
            [
                AddedToken(token, normalized=False, special=True)
                for token in (IMAGE_TOKEN, MASK_RGB_TOKEN, MASK_DEPTH_TOKEN)
                if token not in known
            ]
        )
        tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = START, END, END
        self.region_names = region_names
        self.closing_answer = closing_answer
        self.answer_tokens = answer_tokens
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self.image_id, self.mask_rgb_id, self.mask_depth_id, self.eos_id = (
            self._backend.token_to_id(token) for token in (IMAGE_TOKEN, MASK_RGB_TOKEN, MASK_DEPTH_TOKEN, END)
        )
        self.pad_id = self.eos_id
        self.vocab_size = self._backend.get_vocab_size(with_added_tokens=True)
        self._user = self.tokens(f"{START}user\n")
        self._assistant = self.tokens(f"{START}assistant\n")

    @classmethod
    def load(cls, name: str | Path) -> ChatTokenizer:
        """Loads a folder with tokenizer.json, or a model id of the Hugging Face hub.

        Its chat_format.json says whether regions are named and answers closed, and how long answers are; without it all is as
        published. The tokenizer's own file is taken as it is: transformers' AutoTokenizer would rebuild some tokenizers from
        their class and lose SmolLM2's splitting of digits.

        Raises:
          DataError: there is no such tokenizer.
        """
        folder = _local_folder(str(name))
        form = folder / FORMAT_FILE
        try:
            chat_format = json.loads(form.read_text()) if form.is_file() else {}
            if not set(chat_format) <= set(FORMAT) or not all(
                type(v) is int and v > 0 if name == "answer_tokens" else v in (True, False)
                for name, v in chat_format.items()
            ):
                raise ValueError("other fields or values")
        except (ValueError, TypeError, AttributeError) as error:
            fields = ", ".join(f'"{name}": {value}' for name, value in FORMAT.items())
            raise DataError(f"{form} is no chat format: it may hold {fields}, nothing else") from error
        if not (folder / "tokenizer.json").is_file():
            raise DataError(f"tokenizer {str(name)!r} cannot be loaded (it has no tokenizer.json)")
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"tokenizer {str(name)!r} cannot be loaded ({reason})") from error
        return cls(tokenizer, **chat_format)

    @property
    def chat_format(self) -> dict[str, bool | int]:
        """Where the format differs from the published one."""
        published = {"region_names": False, "closing_answer": False, "answer_tokens": ANSWER_TOKENS}
        return {name: getattr(self, name) for name in FORMAT if getattr(self, name) != published[name]}

    def with_region_names(self, region_names: bool) -> ChatTokenizer:
        """The same tokenizer with the names of regions written or not."""
        return ChatTokenizer(self._tokenizer, region_names, self.closing_answer, self.answer_tokens)

    def with_closing_answer(self, closing_answer: bool) -> ChatTokenizer:
        """The same tokenizer with training answers closed or not."""
        return ChatTokenizer(self._tokenizer, self.region_names, closing_answer, self.answer_tokens)

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer, extra tokens included, so that ``load`` returns an equal one."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            self._tokenizer.save_pretrained(aside)
            # transformers 5 writes a class name that 4, which the PyTorch release uses, lacks.
            config = Path(aside) / "tokenizer_config.json"
            values = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
            config.write_text(json.dumps(values, indent=2) + "\n")
            if self.chat_format:
                (Path(aside) / FORMAT_FILE).write_text(json.dumps(self.chat_format) + "\n")
            for file in sorted(Path(aside).iterdir()):
                os.replace(file, folder / file.name)
        if not self.chat_format:
            (folder / FORMAT_FILE).unlink(missing_ok=True)

    def prefix(self, image_tokens: int) -> np.ndarray:
        """Returns the start of every question, int32[N]: user header and image tokens."""
        return np.array(self._user + [self.image_id] * image_tokens, np.int32)

    def question(self, prompt: str, answer: str | None = None) -> tuple[np.ndarray, int]:
        """Tokenises what follows the picture's prefix.

        Args:
          prompt: the question with one "<mask>" per region.
          answer: the answer, or None for a generation prompt.

        Returns:
          ids int32[N] of the rest of the prompt (assistant header included) and of the answer
          with its end, and the number of ids before the answer. ``prefix`` + ids are the ids of
          the whole conversation.
        """
        ((ids, counted),) = self.conversations([[prompt] if answer is None else [prompt, answer]])
        return ids, int(np.count_nonzero(~counted))

    def conversations(self, conversations: Sequence[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokenises what follows the picture's prefix, of many conversations at once, in parallel.

        Args:
          conversations: texts of the user and the assistant in turn, starting with the user, with one "<mask>" per region and
            without the picture. One that ends with the user becomes a generation prompt.

        Returns:
          For each conversation ids int32[N] and counted bool[N], True for the tokens of an answer and of its end, which
          training counts. ``prefix`` + ids are the ids of the whole conversation.
        """
        texts = []
        for turns in conversations:
            regions = 0
            for index, text in enumerate(turns):
                if index % 2 == 0:
                    texts.append(expand_masks(text, self.region_names, regions))
                    regions += text.count(MASK)
                else:
                    texts.append(text)
        bodies = iter(self._batch([f"{text}{END}\n" for text in texts]))
        tokenised = []
        for turns in conversations:
            parts: list[tuple[list[int], bool]] = []
            for index in range(len(turns)):
                if index % 2 == 0:
                    head = [] if index == 0 else self._user
                    parts += [(head + next(bodies) + self._assistant, False)]
                else:
                    parts += [(next(bodies), True)]
            ids = np.array([id for part, _ in parts for id in part], np.int32)
            counted = np.repeat([answer for _, answer in parts], [len(part) for part, _ in parts])
            tokenised.append((ids, counted))
        return tokenised

    def encode(self, turns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokenises a whole conversation.

        Args:
          turns: texts of the user and the assistant in turn, starting with the user. The first
            holds the image tokens; regions are written ``<mask_rgb><mask_depth>``.

        Returns:
          ids int32[N] and labels int32[N]: the id of the next token where that one belongs to an
          answer or its closing "<|im_end|>\\n", else -100.
        """
        ids: list[int] = []
        labels: list[int] = []
        for index, text in enumerate(turns):
            answer = index % 2 == 1
            head = self._assistant if answer else self._user
            body = self.tokens(f"{text}{END}\n")
            ids += head + body
            labels += [IGNORE] * (len(head) - 1) + (body if answer else [IGNORE] * len(body))
            labels.append(IGNORE)
        return np.array(ids, np.int32), np.array(labels, np.int32)

    def generation_prompt(self, turns: Sequence[str]) -> np.ndarray:
        """Returns the ids, int32[N], after which the assistant's next answer is generated.

        Args:
          turns: as in ``encode``, ending with the user's.
        """
        return np.concatenate([self.encode(turns)[0], np.array(self._assistant, np.int32)])

    def collate(self, conversations: Sequence[Sequence[str]], max_length: int) -> dict[str, np.ndarray]:
        """Makes the padded batch of the PyTorch release.

        A conversation longer than ``max_length`` is cut at its end and has no loss.

        Args:
          conversations: B lists of turns, see ``encode``.
          max_length: S; every row is padded to it, on the left.

        Returns:
          input_ids, attention_mask and labels, all int32[B, S].
        """
        shape = (len(conversations), max_length)
        batch = {
            "input_ids": np.full(shape, self.pad_id, np.int32),
            "attention_mask": np.zeros(shape, np.int32),
            "labels": np.full(shape, IGNORE, np.int32),
        }
        for row, turns in enumerate(conversations):
            ids, labels = self.encode(turns)
            if ids.size > max_length:
                ids, labels = ids[:max_length], np.full(max_length, IGNORE, np.int32)
            begin = max_length - ids.size
            batch["input_ids"][row, begin:] = ids
            batch["attention_mask"][row, begin:] = 1
            batch["labels"][row, begin:] = labels
        return batch

    def tokens(self, text: str) -> list[int]:
        """Returns the ids of a text, special tokens included."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Returns the characters (begin, end) of a text that each of its ``tokens`` stands for."""
        return self._backend.encode(text, add_special_tokens=False).offsets

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the text of generated ids up to the first eos, without surrounding spaces."""
        ids = np.asarray(ids).tolist()
        if self.eos_id in ids:
            ids = ids[: ids.index(self.eos_id)]
        return self._backend.decode(ids, skip_special_tokens=True).strip()

    def _batch(self, texts: Sequence[str]) -> list[list[int]]:
        # In parts, because the library's own result per text is a hundred times larger than the ids.
        return [
            encoding.ids
            for begin in range(0, len(texts), 4096)
            for encoding in self._backend.encode_batch_fast(list(texts[begin : begin + 4096]), add_special_tokens=False)
        ]


def expand_masks(prompt: str, region_names: bool = False, first: int = 0) -> str:
    """Returns the question with every "<mask>" as the model's pair of RGB and depth tokens.

    With ``region_names`` the number of each region stands before its pair, counted from ``first``.
    """
    if not region_names:
        return prompt.replace(MASK, MASK_RGB_TOKEN + MASK_DEPTH_TOKEN)
    start, *rest = prompt.split(MASK)
    return start + "".join(
        f"{number}{MASK_RGB_TOKEN}{MASK_DEPTH_TOKEN}{text}" for number, text in enumerate(rest, first)
    )


def _local_folder(name: str) -> Path:
    """The folder of a local path or of a model on the Hugging Face hub; raises DataError if there is none."""
    if Path(name).is_dir():
        return Path(name)
    if _looks_local(name):
        raise DataError(f"tokenizer {name!r} cannot be loaded (there is no such folder)")
    from huggingface_hub import snapshot_download

    try:
        # One look at the hub, where transformers would ask for file after file and for each several times.
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # many classes, of the hub's client and of what it stands on
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"tokenizer {name!r}: neither a folder here nor a model that can be fetched from the Hugging Face hub ({reason})"
        ) from error


def _looks_local(name: str) -> bool:
    """Whether a name can only be a path: the hub's ids have at most one slash, in the middle."""
    return Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
