"""The model's sizes, presets of them, and how a model of some sizes is computed: frozen dataclasses."""

import contextlib
import dataclasses
import importlib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from smolrgpt_jax.errors import ConfigError

Dtype = Literal["float32", "bfloat16"]
RematPolicy = Literal["none", "dots", "full"]
AttentionImplementation = Literal["xla", "flat", "cudnn"]
ATTENTIONS: tuple[str, ...] = get_args(AttentionImplementation)

VOCAB_MULTIPLE = 128
REFINER_STAGES = 3
# Few layers compile quickly unrolled, and on two CPU cores a step of the demo's four takes 0.24 s so, 0.27 s scanned.
UNROLLED_LAYERS = 4
# Above these a file lies, and shapes would be counted for hours.
MOST, MOST_LAYERS = 10**7, 1000
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a section of names"}


def misfit(value: Any, default: Any) -> str | None:
    """What a value should be that is of another kind than its default; None if it is of that kind, as 1 is for 1.0, but not for True."""
    kind = type(default)
    fits = type(value) is kind or kind is float and type(value) is int
    return None if fits else _KINDS[kind]


def check_fields(part: Any, prefix: str = "") -> None:
    """Raises ConfigError for a field of another kind than its default, and for a number that no model has: 0, but for ids."""
    for known in dataclasses.fields(part):
        value, default = getattr(part, known.name), known.default
        if default is dataclasses.MISSING:
            continue
        most = {int: MOST_LAYERS if known.name == "layers" else MOST, float: sys.float_info.max}.get(type(default))
        wrong = misfit(value, default)
        if wrong or most and not (0 < value <= most or value == 0 and known.name.endswith("_id")):
            expected = wrong or f"a number above 0, at most {most}"
            raise ConfigError(f"{prefix}{known.name} is {value!r}, expected {expected}")


@dataclass(frozen=True)
class Compute:
    """How a model is computed: what it computes is the same up to rounding.

    Raises ConfigError on construction for a choice that does not exist.
    """

    # Of activations and matrix products; parameters, norms, softmax, rotary angles and loss are float32 in any case.
    dtype: Dtype = "float32"
    # What of a layer's forward pass is computed again in the backward pass: nothing, all but its matrix products, all.
    remat: RematPolicy = "none"
    attention: AttentionImplementation = "xla"  # see `smolrgpt_jax.models.attention`
    scan_layers: bool = True  # the layers of a tower are one loop in the compiled program, or one after the other
    # The most answer tokens that a row has: training makes logits for so many, 0 for all tokens of a row.
    answers: int = 0

    def __post_init__(self) -> None:
        choices = {"dtype": Dtype, "remat": RematPolicy, "attention": AttentionImplementation}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in get_args(known):
                raise ConfigError(f"{name} {value!r} is not one of {', '.join(get_args(known))}")

    @classmethod
    def of(cls, config: "SmolRGPTConfig", **choices: Any) -> "Compute":
        """These choices; layers are scanned where they are many."""
        return cls(scan_layers=max(config.vision.layers, config.decoder.layers) > UNROLLED_LAYERS, **choices)

    def replace(self, **changes: Any) -> "Compute":
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP vision transformer; the defaults are SigLIP2-base-patch16-256."""

    width: int = 768
    mlp_width: int = 3072
    heads: int = 12
    layers: int = 12
    patch_size: int = 16
    image_size: int = 256  # pixels, the side of the square input
    layer_norm_eps: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class DecoderConfig:
    """Llama-shaped causal decoder; the defaults are SmolLM2-360M plus three extra tokens."""

    width: int = 960
    mlp_width: int = 2560
    heads: int = 15
    kv_heads: int = 5
    layers: int = 32
    vocab_size: int = 49155  # with the extra tokens
    rms_norm_eps: float = 1e-5
    rope_base: float = 100000.0
    rope_scale: float = 1.0  # multiplies cosines and sines
    max_positions: int = 8192
    tied_head: bool = True
    # How random weights are drawn, which are replaced by those that are read; config.json does not hold them.
    embedding_stddev: float = 0.02
    residual_init_scale: float = 1.0  # how much smaller than usual those are that write to the residual stream

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding on the device: the vocabulary rounded up so that it shards evenly."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


@dataclass(frozen=True)
class SpecialTokens:
    """Texts of the extra tokens, appended to the tokenizer in this order."""

    image: str = "<|image|>"
    mask_rgb: str = "<mask_rgb>"
    mask_depth: str = "<mask_depth>"


@dataclass(frozen=True)
class SmolRGPTConfig:
    """The whole model. A subclass can describe another one, see `models.smolrgpt.make_model`.

    Raises ConfigError on construction when sizes contradict each other.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    special_tokens: SpecialTokens = field(default_factory=SpecialTokens)
    shuffle_factor: int = 2
    max_length: int = 512  # tokens of one conversation in training

    def __post_init__(self) -> None:
        v, d, factor = self.vision, self.decoder, self.shuffle_factor
        for prefix, part in (("vision.", v), ("decoder.", d), ("special_tokens.", self.special_tokens), ("", self)):
            check_fields(part, prefix)
        checks = [
            (v.image_size % v.patch_size, f"image size {v.image_size} is not a multiple of patch size {v.patch_size}"),
            (v.grid % factor, f"{v.grid} patches per side do not divide by pixel-shuffle factor {factor}"),
            (v.width % v.heads, f"vision width {v.width} does not divide into {v.heads} heads"),
            (v.width % 4, f"vision width {v.width} is not a multiple of 4"),
            (d.width % d.heads, f"decoder width {d.width} does not divide into {d.heads} heads"),
            (d.head_dim % 2, f"decoder head size {d.head_dim} is odd, rotary positions need pairs"),
            (d.heads % d.kv_heads, f"{d.heads} query heads do not divide into {d.kv_heads} key-value heads"),
        ]
        for remainder, message in checks:
            if remainder:
                raise ConfigError(message)

    @property
    def token_grid(self) -> int:
        """Image tokens along one side of the picture."""
        return self.vision.grid // self.shuffle_factor

    @property
    def image_tokens(self) -> int:
        """Image tokens of one picture."""
        return self.token_grid**2

    @property
    def mask_grid(self) -> int:
        """Side of the refined feature map, and of the sampled region masks."""
        return self.token_grid * 2**REFINER_STAGES

    def replace(self, **changes: Any) -> "SmolRGPTConfig":
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, the inverse of `from_dict`; that of a subclass tells its name as "class"."""
        kind = type(self)
        named = {} if kind is SmolRGPTConfig else {"class": f"{kind.__module__}.{kind.__qualname__}"}
        return named | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SmolRGPTConfig":
        """Reads what `to_dict` wrote, importing a subclass that is part of this project; also what checkpoints of old hold.

        Raises ConfigError for such a class that does not exist, and for a field that is unknown or missing.
        """
        values = dict(values)
        if "class" in values:
            return _subclass(values.pop("class")).from_dict(values)
        known = {field.name for field in dataclasses.fields(cls)}
        for name in _OLD_FIELDS.keys() - known & values.keys():
            value, published = values.pop(name), _OLD_FIELDS[name]
            if published not in (None, value):
                raise ConfigError(f"the model has {name} {value!r}, only {published!r} can still be read")
        nested = {"vision": VisionConfig, "decoder": DecoderConfig, "special_tokens": SpecialTokens}
        try:
            return cls(**{k: nested[k](**v) if k in nested else v for k, v in values.items()})
        except TypeError as error:
            raise ConfigError(f"model configuration has an unknown or missing field: {error}") from error


# What checkpoints hold that were written when the sizes also said how the model is computed (None: whatever it is) and which
# parts of it a study had left out.
_OLD_FIELDS: dict[str, Any] = dict.fromkeys(("compute_dtype", "remat", "attention", "scan_layers"))
_OLD_FIELDS |= {"depth_pathway": "separate", "refiners": True, "picture_tokens": True, "region_extent": False}


def _subclass(name: str) -> type[SmolRGPTConfig]:
    """The class of a dotted name in this project's packages."""
    module, _, kind = name.rpartition(".")
    found = None
    if module.split(".")[0] in ("smolrgpt_jax", "eval"):
        with contextlib.suppress(ImportError):
            found = getattr(importlib.import_module(module), kind, None)
    if not (isinstance(found, type) and issubclass(found, SmolRGPTConfig)):
        raise ConfigError(f"the model's configuration is of class {name!r}, which this project does not have")
    return found


_FILE = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
PRESETS = {name: SmolRGPTConfig.from_dict(sizes) for name, sizes in _FILE.items()}
