"""The programs of an export: encode, prefill and decode, lowered for several platforms at once with `jax.export`."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.inputs import PICTURES
from smolrgpt_jax.generation.decode import Cache, Weights, columns, decode_weights, left_padded, next_logits, prefill
from smolrgpt_jax.models.smolrgpt import abstract_params

PLATFORMS = ("cpu", "cuda", "tpu")

Arrays = dict[str, jax.Array]


@dataclass(frozen=True)
class Program:
    function: Callable[[dict[str, Any], Arrays], Arrays]  # (parameters, inputs) -> outputs
    parts: tuple[str, ...]  # first words of its parameters' names
    inputs: dict[str, jax.ShapeDtypeStruct]


@dataclass(frozen=True)
class ExportSettings:
    """What the programs are made for."""

    platforms: tuple[str, ...] = PLATFORMS
    batch: int | None = None  # rows of every call, None for any number
    prompt_tokens: int = 512  # S, of the longest prompt, with its image tokens
    regions: int = 18  # R, most of a prompt, 0 for pictures without depth
    new_tokens: int = 120  # N, of the longest answer
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations and of parameters that are not of normalisation

    def check(self, config: SmolRGPTConfig, tokenizer: ChatTokenizer) -> None:
        """Raises ValueError for settings that make no sense, or that this model and its tokenizer cannot have."""
        unknown = [name for name in self.platforms if name not in PLATFORMS]
        problems = [
            (not self.platforms, "no platform is given"),
            (unknown, f"there is no platform {', '.join(unknown)!r}, choose from {', '.join(PLATFORMS)}"),
            (self.dtype not in ("float32", "bfloat16"), f"dtype is {self.dtype!r}, must be float32 or bfloat16"),
            (self.batch is not None and self.batch < 1, f"batch is {self.batch}, must be at least 1"),
            (self.regions < 0, f"regions is {self.regions}, must be at least 0"),
            *length_problems(self.prompt_tokens, self.new_tokens, config, tokenizer),
        ]
        for applies, problem in problems:
            if applies:
                raise ValueError(problem)


def length_problems(asked: int, new: int, config: SmolRGPTConfig, tokenizer: ChatTokenizer) -> list[tuple[bool, str]]:
    """What may be wrong with prompts of `asked` tokens and answers of `new` ones: whether it is, and the sentence."""
    needed = tokenizer.prefix(config.image_tokens).size + tokenizer.question("")[0].size
    known, vocabulary, most = tokenizer.vocab_size, config.decoder.vocab_size, config.decoder.max_positions
    short = f"prompts of {asked} tokens are too short: the picture and the chat format take {needed}"
    return [
        (new < 1, f"new_tokens is {new}, must be at least 1"),
        (known != vocabulary, f"the tokenizer has {known} tokens, the model {vocabulary}"),
        (asked <= needed, short),
        (asked + new > most, f"{asked} prompt tokens and {new} new ones exceed the model's {most} positions"),
    ]


def make_programs(config: SmolRGPTConfig, settings: ExportSettings) -> dict[str, Program]:
    """The programs by name; their number of rows is the symbol b if it is left open."""
    rows = settings.batch or jax.export.symbolic_shape("b")[0]
    tokens, regions, total = settings.prompt_tokens, settings.regions, settings.prompt_tokens + settings.new_tokens
    compute, decoder = Compute.of(config, dtype=settings.dtype), config.decoder
    # Every program has a part of the model and of its parameters; the others are not looked at.
    absent: dict[str, Any] = dict(abstract_params(config))

    def array(*shape: Any, of: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, of)

    def encode(params: dict[str, Any], inputs: Arrays) -> Arrays:
        model = Weights(config, compute, absent | params, []).model
        given: list[Any] = [inputs[name][:, None] if name in inputs else None for name in PICTURES]
        features = model.encode(*given)["features"]
        missing = config.image_tokens + 2 * regions - features.shape[1]
        return {"features": jnp.pad(features, ((0, 0), (0, missing), (0, 0)))}

    def named(layers: Any) -> dict[str, Any]:
        return {f"{part}_{i}": x for i, layer in enumerate(layers) for part, x in zip(("keys", "values"), layer)}

    def read(params: dict[str, Any], inputs: Arrays) -> Arrays:
        weights = Weights(config, compute, absent | params, [])
        prompts = {"tokens": inputs["input_ids"], "feature_index": inputs["feature_index"]}
        hidden, kept = prefill(weights, prompts | left_padded(inputs["attention_mask"]), inputs["features"])
        logits = weights.model.decoder.logits(hidden[:, -1])[:, : decoder.vocab_size]
        layers = [columns(keys, values, settings.new_tokens) for keys, values in zip(*kept)]
        return {"logits": logits, **named(layers)}

    def decode(params: dict[str, Any], inputs: Arrays) -> Arrays:
        prompt, step = inputs["attention_mask"] != 0, inputs["step"]
        layers = tuple((inputs[f"keys_{i}"], inputs[f"values_{i}"]) for i in range(decoder.layers))
        cache = Cache(prompt, jnp.broadcast_to(step, prompt.shape[:1]), step, layers)
        logits, cache = next_logits(decode_weights(config, compute, absent | params), inputs["token"], cache)
        return {"logits": logits[:, : decoder.vocab_size], **named(cache.layers)}

    side, grid = config.vision.image_size, config.mask_grid
    pixels, prompt = array(rows, side, side, 3, of=jnp.float32), array(rows, tokens)
    features = array(rows, config.image_tokens + 2 * regions, decoder.width, of=compute.dtype)
    keys = array(rows, decoder.kv_heads, decoder.head_dim, total, of=compute.dtype)
    values = array(rows, decoder.kv_heads, total, decoder.head_dim, of=compute.dtype)
    prompts = {"input_ids": prompt, "attention_mask": prompt, "feature_index": prompt, "features": features}
    last = {"token": array(rows), "step": array(), "attention_mask": prompt, **named([(keys, values)] * decoder.layers)}
    programs = {
        "encode_rgb": Program(encode, ("vision_encoder", "rgb_connector"), {"images": pixels}),
        "prefill": Program(read, ("decoder",), prompts),
        "decode": Program(decode, ("decoder",), last),
    }
    if regions:
        masks = array(rows, regions, grid, grid, of=jnp.float32)
        parts = tuple(sorted({name.split("/")[0] for name in absent} - {"decoder"}))
        programs["encode"] = Program(encode, parts, {"images": pixels, "depths": pixels, "region_masks": masks})
    return programs


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
    shapes = abstract_params(config)
    dtypes = {name: stored_dtype(name, settings.dtype, shapes) for name in shapes}
    params = {name: jax.ShapeDtypeStruct(shape.shape, dtypes[name]) for name, shape in shapes.items()}
    exported = {}
    # GPUs and TPUs would round float32 products; a float32 export is asked for to have them exact.
    precision = "highest" if settings.dtype == "float32" else "default"
    with jax.default_matmul_precision(precision):
        for name, program in make_programs(config, settings).items():
            on_program(name)
            needed = {n: shape for n, shape in params.items() if n.split("/")[0] in program.parts}
            lower = jax.export.export(jax.jit(program.function), platforms=settings.platforms)
            exported[name] = lower(needed, program.inputs)
    return exported


def stored_dtype(name: str, dtype: str, names: Collection[str]) -> np.dtype:
    """Normalisation runs in float32 with float32 weights; all others are cast to the dtype of the activations when used."""
    normalisation = f"{name.rpartition('/')[0]}/scale" in names
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" and not normalisation else np.float32)
