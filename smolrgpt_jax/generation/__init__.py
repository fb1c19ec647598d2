"""Answers from the model: prefill, decode loop, sampling."""

from smolrgpt_jax.generation.answers import ClosedAnswer, closed_answers, generate_answers
from smolrgpt_jax.generation.decode import Sampling, generate

__all__ = ["ClosedAnswer", "Sampling", "closed_answers", "generate", "generate_answers"]
