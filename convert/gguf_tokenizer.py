"""The tokenizer in a GGUF file's metadata, written as tokenizer.json and tokenizer_config.json."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolrgpt_jax.errors import CheckpointError

NAMES = tomllib.loads(Path(__file__).with_name("gguf.toml").read_text(encoding="utf-8"))
ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # kinds of tokens that a text is searched for before it is split


def listed(path: Path, metadata: Mapping[str, Any], key: str, kind: type, count: int | None = None) -> list[Any]:
    """A list of the metadata; raises CheckpointError if it is missing, or not of `count` values of a kind."""
    values = metadata.get(key)
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise CheckpointError(f"{path}: the metadata have no list {key}")
    if count not in (None, len(values)):
        raise CheckpointError(f"{path}: {key} has {len(values)} entries for {count} tokens")
    return values


def special_ids(path: Path, metadata: Mapping[str, Any], tokens: int) -> dict[str, int]:
    """{"bos", "eos", "pad", "unk": id}, as far as the metadata name them; raises CheckpointError for an id that no token has."""
    ids = {role: metadata.get(f"tokenizer.ggml.{name}_token_id") for role, name in ROLES.items()}
    found = {role: number for role, number in ids.items() if number is not None}
    for role, number in found.items():
        if not isinstance(number, int) or not 0 <= number < tokens:
            raise CheckpointError(f"{path}: tokenizer.ggml.{ROLES[role]}_token_id is {number!r} of {tokens} tokens")
    return found


def tokenizer_texts(path: Path, metadata: Mapping[str, Any], longest: int) -> dict[str, str]:
    """{file name: text} of the tokenizer; raises CheckpointError for one that is not byte-level BPE, split in a way that is known.

    longest: tokens of a text that the model takes.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    tokens = listed(path, metadata, "tokenizer.ggml.tokens", str)
    kinds = listed(path, metadata, "tokenizer.ggml.token_type", int, len(tokens))
    merges = [tuple(merge.split(" ")) for merge in listed(path, metadata, "tokenizer.ggml.merges", str)]
    special = {role: tokens[id] for role, id in special_ids(path, metadata, len(tokens)).items()}
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        raise CheckpointError(f"{path}: {len(tokens) - len(vocabulary)} of its tokens are there twice")
    split = _split(path, metadata.get("tokenizer.ggml.pre"))
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=split == "llama3"))
    except Exception as error:  # the library raises no narrower class
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its tokens and merges make no tokenizer ({reason})") from error
    splits: list[Any] = []
    if split == "digits":
        splits = [pre_tokenizers.Digits(individual_digits=True)]
    elif split == "llama3":
        splits = [pre_tokenizers.Split(Regex(NAMES["patterns"][split]), "isolated")]
    splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split != "llama3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    added = {role: bool(metadata.get(f"tokenizer.ggml.add_{role}_token")) for role in ("bos", "eos")}
    around = {role: [special[role]] if added[role] and role in special else [] for role in added}
    if any(around.values()):
        numbers = [(token, vocabulary[token]) for (token,) in filter(None, around.values())]
        template, second = ([*around["bos"], text, *around["eos"]] for text in ("$A", "$B"))
        tokenizer.post_processor = processors.TemplateProcessing(template, template + second, numbers)
    for token, kind in zip(tokens, kinds):
        if kind in (UNKNOWN, CONTROL, USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=kind != USER_DEFINED)])
    values = {f"{role}_token": token for role, token in special.items()}
    values |= {f"add_{role}_token": bool(tokens) for role, tokens in around.items()}
    values |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}
    values |= {"clean_up_tokenization_spaces": False}
    if isinstance(template := metadata.get("tokenizer.chat_template"), str):
        values["chat_template"] = template
    config = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    return {"tokenizer.json": tokenizer.to_str(pretty=True), "tokenizer_config.json": config}


def _split(path: Path, name: object) -> str:
    """How a text is split, by llama.cpp's name for it; raises CheckpointError for one that is not known."""
    for split, names in NAMES["splits"].items():
        if name in names:
            return split
    known = ", ".join(name for names in NAMES["splits"].values() for name in names)
    raise CheckpointError(f"{path}: tokenizer.ggml.pre={name!r} is not supported, only {known}")
