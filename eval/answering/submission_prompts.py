"""The prompts of the published challenge submission, which differ from those of training.

    training     <|im_start|>user\\n + image tokens + question + <|im_end|>\\n<|im_start|>assistant\\n
    submission   <|im_start|>user\\n + image tokens + \\n + question + <|im_end|>\\n<|im_start|>assistant\\n<|im_end|>\\n

Its script removed only the mark from "<image>\\nHow far ...", and closed an empty assistant's turn instead of opening
one, so that the model writes the header itself. The published test scores were made so.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import IMAGE, Picture, Question
from smolrgpt_jax.data.regions import first_text


class SubmissionTokenizer(ChatTokenizer):
    """A chat tokenizer whose generation prompts end with an empty, closed turn of the assistant."""

    @classmethod
    def of(cls, tokenizer: ChatTokenizer) -> "SubmissionTokenizer":
        return cls(tokenizer._tokenizer, tokenizer.format)

    def conversations(self, conversations: Sequence[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `ChatTokenizer.conversations`, except for conversations that end with the user."""
        closed = super().conversations([[*turns, ""] if len(turns) % 2 else turns for turns in conversations])
        return [
            (ids, np.zeros_like(counted) if len(turns) % 2 else counted)
            for turns, (ids, counted) in zip(conversations, closed)
        ]


def with_newlines(pictures: Sequence[Picture], records: Sequence) -> list[Picture]:
    """Puts back the line break between "<image>" and the question, which the readers take away.

    pictures: with single-turn questions; records: of the file they were read from, in the warehouse's format.
    """
    broken = {str(record.get("id")) for record in records if first_text(record).lstrip().startswith(f"{IMAGE}\n")}

    def mended(question: Question) -> Question:
        return dataclasses.replace(question, prompt="\n" + question.prompt) if question.id in broken else question

    return [dataclasses.replace(picture, questions=tuple(map(mended, picture.questions))) for picture in pictures]
