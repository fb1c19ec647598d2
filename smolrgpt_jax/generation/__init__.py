"""Answers from the model: prefill, decode loop, sampling."""

from smolrgpt_jax.generation.answers import AnswerOptions, GeneratedAnswer, generate_answers
from smolrgpt_jax.generation.decode import Sampling, generate

__all__ = ["AnswerOptions", "GeneratedAnswer", "Sampling", "generate", "generate_answers"]
