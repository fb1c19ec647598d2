"""`load(path)`: a model with NumPy in and out, from a PyTorch folder or one of our checkpoints."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from smolrgpt_jax.checkpoint.load import Checkpoint, read_checkpoint
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.data.inputs import PICTURES, InputSizes, check_left_padded, mask_arrays, model_inputs
from smolrgpt_jax.generation.decode import decode_weights, generate, left_padded, stream
from smolrgpt_jax.generation.sampling import GREEDY, Sampling
from smolrgpt_jax.models.smolrgpt import Params, bind

EOS_ID = 2  # <|im_end|> in SmolLM2's tokenizer


@functools.partial(jax.jit, static_argnames=("config", "compute"))
def _forward(
    config: SmolRGPTConfig, compute: Compute, params: Params, batch: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    return bind(config, params, compute)(batch)


@dataclass(frozen=True)
class Model(Checkpoint):
    """A checkpoint that computes, as `compute` says: forward pass and greedy or sampled answers, NumPy in and out."""

    compute: Compute = Compute()

    def forward(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        images: np.ndarray,
        depths: np.ndarray | None = None,
        masks: Sequence[np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Logits and every intermediate for a batch of conversations; errors as in `data.inputs.model_inputs`.

        Args:
          input_ids: int[B, S].
          attention_mask: int[B, S].
          images: float32[B, H, W, 3] in [-1, 1].
          depths: the same shape, or None.
          masks: B arrays [Hm, Wm, R], or None.

        Returns:
          float32 arrays: logits [B, S, vocab]; vision_features_rgb/_depth [B, N, Dv]; image_tokens, depth_tokens
            [B, T, D]; rgb_refined, depth_refined [B, g * g, D]; region_rgb, region_depth [R1 + R2 + ..., D].
        """
        given = mask_arrays(masks) if masks is not None else []
        batch = self._batch(input_ids, attention_mask, images, depths, given if masks is not None else None)
        found = _forward(self.config, self.compute, self.params, batch)
        out = {name: np.asarray(value, np.float32) for name, value in found.items()}
        out["logits"] = out["logits"][..., : self.config.decoder.vocab_size]
        for name in out.keys() & {"region_rgb", "region_depth"}:
            out[name] = np.concatenate([row[: mask.shape[-1]] for row, mask in zip(out[name], given)])
        return out

    def generate(
        self, *inputs: Any, max_new_tokens: int = 120, sampling: Sampling = GREEDY, seed: int = 0, **named: Any
    ) -> np.ndarray:
        """Continues left-padded prompts (arguments as in `forward`): int32[B, max_new_tokens], eos after a row's first eos."""
        batch, key = self._prompts(max_new_tokens, *inputs, **named), jax.random.key(seed)
        weights = decode_weights(self.config, self.compute, self.params)
        limits = {"max_new_tokens": max_new_tokens, "eos_id": self.eos_id}
        return np.asarray(generate(weights, batch, key, **limits, sampling=sampling))

    def stream(self, *inputs: Any, max_new_tokens: int = 120, **named: Any) -> Iterator[np.ndarray]:
        """Yields the columns of the greedy `generate`, int32[B] each, as they are made, until every row has ended."""
        batch = self._prompts(max_new_tokens, *inputs, **named)
        weights = decode_weights(self.config, self.compute, self.params)
        return stream(weights, batch, max_new_tokens=max_new_tokens, eos_id=self.eos_id)

    @property
    def eos_id(self) -> int:
        return EOS_ID if self.tokenizer is None else self.tokenizer.eos_id

    def _prompts(self, max_new_tokens: int, *given: Any, **named: Any) -> dict[str, Any]:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}, must be at least 1")
        batch = self._batch(*given, **named)
        check_left_padded(batch["picture_ids"])
        return batch

    def _batch(self, *given: Any, **named: Any) -> dict[str, Any]:
        """The arrays of `model_inputs` as those of packed rows: one picture and one question each."""
        batch: dict[str, Any] = model_inputs(InputSizes.of(self.config), *given, **named)
        pictures = {name: batch.pop(name)[:, None] for name in PICTURES if name in batch}
        return batch | left_padded(batch.pop("attention_mask")) | pictures


def load(path: str | Path, compute_dtype: str = "float32", mesh: Mesh | None = None) -> Model:
    """Loads a checkpoint of any kind, see `read_checkpoint`: parameters in float32 on this process's first device, or on `mesh` with
    the shardings of training.

    Raises CheckpointError for a folder that holds no checkpoint or a damaged one.
    """
    read = read_checkpoint(path).on_devices(mesh)
    return Model(**vars(read), compute=Compute.of(read.config, dtype=compute_dtype))
