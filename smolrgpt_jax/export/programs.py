"""The programs of an export: encode, prefill and decode, lowered for several platforms at once with `jax.export`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.models.attention import packed_attention_mask
from smolrgpt_jax.models.smolrgpt import Params, abstract_params, bind

PLATFORMS = ("cpu", "cuda", "tpu")

Arrays = dict[str, jax.Array]


@dataclass(frozen=True)
class Program:
    """function(parameters, inputs) -> outputs; parts: first words of its parameters' names; inputs: {name: shape and dtype}."""

    function: Callable[[Params, Arrays], Arrays]
    parts: tuple[str, ...]
    inputs: dict[str, jax.ShapeDtypeStruct]


@dataclass(frozen=True)
class ExportSettings:
    """What the programs are made for.

    platforms: of PLATFORMS; batch: rows of every call, None for any number; prompt_tokens: S, longest prompt with its image
    tokens; regions: R, most regions of a prompt, 0 for pictures without depth; new_tokens: N, longest answer; dtype: of the
    activations and of the parameters that are not normalisation weights.
    """

    platforms: tuple[str, ...] = PLATFORMS
    batch: int | None = None
    prompt_tokens: int = 512
    regions: int = 18
    new_tokens: int = 120
    dtype: Literal["float32", "bfloat16"] = "float32"

    def check(self, config: SmolRGPTConfig, tokenizer: ChatTokenizer) -> None:
        """Raises ValueError for settings that make no sense, or that this model and its tokenizer cannot have."""
        unknown = [name for name in self.platforms if name not in PLATFORMS]
        if unknown or not self.platforms:
            what = f"there is no platform {unknown[0]!r}" if unknown else "no platform is given"
            raise ValueError(f"{what}, choose from {', '.join(PLATFORMS)}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}, must be float32 or bfloat16")
        for name, value, least in (
            ("batch", self.batch, 1),
            ("regions", self.regions, 0),
            ("new_tokens", self.new_tokens, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, must be at least {least}")
        if tokenizer.vocab_size != config.decoder.vocab_size:
            raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {config.decoder.vocab_size}")
        needed = tokenizer.prefix(config.image_tokens).size + tokenizer.question("")[0].size
        if self.prompt_tokens <= needed:
            raise ValueError(
                f"prompts of {self.prompt_tokens} tokens are too short: the picture and the chat format take {needed}"
            )
        longest = config.decoder.max_positions
        if self.prompt_tokens + self.new_tokens > longest:
            raise ValueError(
                f"{self.prompt_tokens} prompt tokens and {self.new_tokens} new ones exceed the model's {longest} positions"
            )


def make_programs(
    config: SmolRGPTConfig, compute: Compute, settings: ExportSettings, tokenizer: ChatTokenizer
) -> dict[str, Program]:
    """The programs by name; their number of rows is the symbol b if it is left open."""
    rows = settings.batch or jax.export.symbolic_shape("b")[0]
    tokens, regions = settings.prompt_tokens, settings.regions
    total = tokens + settings.new_tokens
    decoder, dtype = config.decoder, jnp.dtype(compute.dtype)
    absent = abstract_params(config)

    def array(shape: Sequence[int], of: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(tuple(shape), of)

    side, grid = config.vision.image_size, config.mask_grid
    pixels = array((rows, side, side, 3), jnp.float32)
    cache = array((decoder.layers, rows, total, decoder.kv_heads, decoder.head_dim), dtype)

    def encode(params: Params, inputs: Arrays) -> Arrays:
        pictures = [inputs[name][:, None] for name in ("images", "depths", "region_masks")]
        return {"features": bind(config, absent | params, compute).encode(*pictures)["features"]}

    def encode_rgb(params: Params, inputs: Arrays) -> Arrays:
        features = bind(config, absent | params, compute).encode(inputs["images"][:, None], None, None)["features"]
        return {"features": jnp.pad(features, ((0, 0), (0, 2 * regions), (0, 0)))}

    def prefill(params: Params, inputs: Arrays) -> Arrays:
        model = bind(config, absent | params, compute)
        prompt = (inputs["attention_mask"] != 0).astype(jnp.int32)
        index = _feature_index(inputs["input_ids"], prompt, inputs["regions"], config, regions, tokenizer)
        x = model.embed(inputs["input_ids"], index, inputs["features"])
        mask = packed_attention_mask(prompt, jnp.zeros_like(prompt))
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, settings.new_tokens)))
        positions = jnp.maximum(jnp.cumsum(prompt, axis=1) - 1, 0)
        empty = model.decoder.init_cache(prompt.shape[0], total, x.dtype)
        hidden, (keys, values) = model.decoder(x, positions, mask, empty)
        logits = model.decoder.logits(hidden[:, -1])[:, : decoder.vocab_size]
        return {"logits": logits, "cache_keys": keys, "cache_values": values}

    def decode(params: Params, inputs: Arrays) -> Arrays:
        model = bind(config, absent | params, compute)
        prompt, step = inputs["attention_mask"] != 0, inputs["step"]
        slots = jnp.arange(total)
        in_prompt = jnp.pad(prompt, ((0, 0), (0, settings.new_tokens)))
        visible = jnp.where(slots < tokens, in_prompt, slots <= tokens + step)
        positions = jnp.sum(prompt, axis=1, keepdims=True, dtype=jnp.int32) + step
        x = model.decoder.embed(inputs["token"][:, None], dtype)
        stored = (inputs["cache_keys"], inputs["cache_values"])
        hidden, (keys, values) = model.decoder(x, positions, visible[:, None], stored, tokens + step)
        logits = model.decoder.logits(hidden[:, 0])[:, : decoder.vocab_size]
        return {"logits": logits, "cache_keys": keys, "cache_values": values}

    features = array((rows, config.image_tokens + 2 * regions, decoder.width), dtype)
    mask = array((rows, tokens))
    programs = {
        "encode_rgb": Program(encode_rgb, ("vision_encoder", "rgb_connector"), {"images": pixels}),
        "prefill": Program(
            prefill,
            ("decoder",),
            {"input_ids": mask, "attention_mask": mask, "regions": array((rows,)), "features": features},
        ),
        "decode": Program(
            decode,
            ("decoder",),
            {
                "token": array((rows,)),
                "step": array(()),
                "attention_mask": mask,
                "cache_keys": cache,
                "cache_values": cache,
            },
        ),
    }
    if regions:
        masks = array((rows, regions, grid, grid), jnp.float32)
        programs["encode"] = Program(
            encode,
            tuple({name.split("/")[0] for name in absent} - {"decoder"}),
            {"images": pixels, "depths": pixels, "region_masks": masks},
        )
    return programs


def _feature_index(
    input_ids: jax.Array,
    prompt: jax.Array,
    given: jax.Array,
    config: SmolRGPTConfig,
    regions: int,
    tokenizer: ChatTokenizer,
) -> jax.Array:
    """Row of the features that takes each token's place, int32[B, S], -1 for text.

    The i-th image token takes image token i; the i-th token of a kind of region takes region i, where the row has that many
    (`given`: int32[B]).
    """
    index = jnp.full(input_ids.shape, -1, jnp.int32)
    kinds = (
        (tokenizer.image_id, 0, config.image_tokens),
        (tokenizer.mask_rgb_id, config.image_tokens, given[:, None]),
        (tokenizer.mask_depth_id, config.image_tokens + regions, given[:, None]),
    )
    for token, start, available in kinds:
        here = (input_ids == token) & (prompt != 0)
        number = jnp.cumsum(here, axis=1, dtype=jnp.int32) - 1
        index = jnp.where(here & (number < available), start + number, index)
    return index


def export_programs(
    config: SmolRGPTConfig,
    settings: ExportSettings,
    tokenizer: ChatTokenizer,
    on_program: Callable[[str], None] = lambda name: None,
) -> dict[str, jax.export.Exported]:
    """Lowers every program for all platforms; no parameters are needed.

    `on_program` is told each name before its turn. Raises ValueError as `ExportSettings.check`.
    """
    settings.check(config, tokenizer)
    compute = Compute.of(config, dtype=settings.dtype)
    shapes = abstract_params(config)
    params = {
        name: jax.ShapeDtypeStruct(shape.shape, stored_dtype(name, settings.dtype, shapes))
        for name, shape in shapes.items()
    }
    exported = {}
    # GPUs and TPUs would round float32 products; a float32 export is asked for to have them exact.
    precision = "highest" if settings.dtype == "float32" else "default"
    with jax.default_matmul_precision(precision):
        for name, program in make_programs(config, compute, settings, tokenizer).items():
            on_program(name)
            needed = {n: shape for n, shape in params.items() if n.split("/")[0] in program.parts}
            lower = jax.export.export(jax.jit(program.function), platforms=settings.platforms)
            exported[name] = lower(needed, program.inputs)
    return exported


def stored_dtype(name: str, dtype: str, names: Collection[str]) -> np.dtype:
    """Normalisation runs in float32 with float32 weights; all others are cast to the dtype of the activations when used."""
    normalisation = f"{name.rpartition('/')[0]}/scale" in names
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" and not normalisation else np.float32)
