"""Conversations of several turns -> one question with what was said before it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from smolrgpt_jax.data.records import IMAGE, MASK

_DEPTH_MARK = re.compile(rf"{MASK}\s*<depth>")
_MASK_TOKENS = re.compile(r"<mask_rgb>\s*<mask_depth>")
_OTHER_MARKS = re.compile(r"<depth>|<mask_rgb>|<mask_depth>")


def user_text(text: str) -> str:
    """A user's text with one "<mask>" per region and without the picture's mark at either end.

    A region is written "<mask>", "<mask> <depth>" (Open Spatial Dataset) or "<mask_rgb><mask_depth>" (SmolRGPT's parquet).
    Raises ValueError for a mark that is left over.
    """
    text = _MASK_TOKENS.sub(MASK, _DEPTH_MARK.sub(MASK, text)).strip()
    text = text.removeprefix(IMAGE).removesuffix(IMAGE).strip()
    left = _OTHER_MARKS.search(text)
    if left:
        raise ValueError(f"the question holds {left[0]} without its partner")
    return text


def first_text(record: object) -> str:
    """What the first turn of a chat record says, as it stands there; "" if the record has no such turn."""
    try:
        return str(record["conversations"][0]["value"])
    except (KeyError, IndexError, TypeError):
        return ""


def split_turns(texts: Sequence[object]) -> tuple[tuple[tuple[str, str], ...], str, str | None]:
    """Texts of the user and the assistant in turn -> (earlier turns, last prompt, last answer or None).

    Raises ValueError for a turn without text.
    """
    if not texts:
        raise ValueError("the conversation is empty")
    missing = [i for i, text in enumerate(texts) if not isinstance(text, str)]
    if missing:
        raise ValueError(f"turn {missing[0]} of the conversation has no text")
    turns = [user_text(text) if i % 2 == 0 else text.strip() for i, text in enumerate(texts)]
    answer = turns.pop() if len(turns) % 2 == 0 else None
    earlier = tuple(zip(turns[:-1:2], turns[1::2]))
    if not all(text for turn in earlier for text in turn):
        raise ValueError("a turn of the conversation is empty")
    return earlier, turns[-1], answer


def chat_texts(conversation: object) -> list[object]:
    """The texts of [{"from": "human", "value": ...}, {"from": "gpt", ...}, ...]; raises ValueError for other speakers."""
    turns = conversation if isinstance(conversation, list) else []
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    if not turns or speakers != [("human", "gpt")[i % 2] for i in range(len(turns))]:
        raise ValueError(f"the conversation's speakers are {speakers[:6]}, expected human and gpt in turn")
    return [turn.get("value") for turn in turns]
