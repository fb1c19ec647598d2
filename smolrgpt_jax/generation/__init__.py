"""Answers from the model: prefill, decode step, sampling, and the engine that asks whole data sets of questions."""

from smolrgpt_jax.generation.answers import GeneratedAnswer, generate_answers
from smolrgpt_jax.generation.decode import generate
from smolrgpt_jax.generation.engine import AnswerOptions
from smolrgpt_jax.generation.sampling import Sampling

__all__ = ["AnswerOptions", "GeneratedAnswer", "Sampling", "generate", "generate_answers"]
