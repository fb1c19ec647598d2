"""Answers from the model: prefill, decode loop, sampling."""

from smolrgpt_jax.generation.answers import generate_answers
from smolrgpt_jax.generation.decode import Sampling, generate

__all__ = ["Sampling", "generate", "generate_answers"]
