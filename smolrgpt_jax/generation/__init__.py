"""Answers from the model: prefill, decode step, sampling, and the engine that asks whole data sets of questions."""
