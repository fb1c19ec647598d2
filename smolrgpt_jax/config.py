"""The model's configuration: frozen dataclasses, presets, and the PyTorch release's config.json.

Field names of config.json are those of a checkpoint folder saved by the PyTorch release; fields this model
does not use are the caller's to keep (`smolrgpt_jax.checkpoint` writes them back unchanged).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from smolrgpt_jax.errors import ConfigError

RematPolicy = Literal["none", "dots", "full"]
AttentionImplementation = Literal["xla", "splash", "cudnn"]
ATTENTIONS: tuple[str, ...] = get_args(AttentionImplementation)
DepthPathway = Literal["separate", "shared_connector", "shared_refiner", "none"]

VOCAB_MULTIPLE = 128
REFINER_STAGES = 3


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
    """Llama-shaped causal decoder; the defaults are SmolLM2-360M plus three extra tokens.

    embedding_stddev and residual_init_scale say how random weights are drawn, the latter by how much smaller than usual those are
    that write to the residual stream. Weights that are read replace them, and config.json does not hold them.
    """

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
    embedding_stddev: float = 0.02
    residual_init_scale: float = 1.0

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
    """The whole model.

    depth_pathway, refiners and picture_tokens leave parts of the published model out, for studies: what depth has of its own
    after the encoder ("none": depth tokens are zeros); whether regions are pooled from refined feature maps or straight from the
    connectors', each cell repeated to the size of the masks; whether the image tokens hold the picture or zeros. region_extent adds
    to it: place and size of the mask and the depth under it go into a region's RGB token (models/region_extent.py).

    Raises ConfigError on construction when sizes contradict each other.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    special_tokens: SpecialTokens = field(default_factory=SpecialTokens)
    shuffle_factor: int = 2
    max_length: int = 512  # tokens of one conversation in training
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: RematPolicy = "none"
    attention: AttentionImplementation = "xla"
    scan_layers: bool = True
    depth_pathway: DepthPathway = "separate"
    refiners: bool = True
    picture_tokens: bool = True
    region_extent: bool = False

    def __post_init__(self) -> None:
        if self.depth_pathway not in get_args(DepthPathway):
            raise ConfigError(f"depth_pathway {self.depth_pathway!r} is not one of {', '.join(get_args(DepthPathway))}")
        v, d = self.vision, self.decoder
        checks = [
            (v.image_size % v.patch_size, f"image size {v.image_size} is not a multiple of patch size {v.patch_size}"),
            (
                v.grid % self.shuffle_factor,
                f"{v.grid} patches per side do not divide by pixel-shuffle factor {self.shuffle_factor}",
            ),
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

    def replace(self, **changes: Any) -> SmolRGPTConfig:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, the inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SmolRGPTConfig:
        nested = {"vision": VisionConfig, "decoder": DecoderConfig, "special_tokens": SpecialTokens}
        try:
            return cls(**{k: nested[k](**v) if k in nested else v for k, v in values.items()})
        except TypeError as error:
            raise ConfigError(f"model configuration has an unknown or missing field: {error}") from error


PRESETS: dict[str, SmolRGPTConfig] = {
    "smolrgpt": SmolRGPTConfig(),
    "demo": SmolRGPTConfig(
        vision=VisionConfig(width=128, mlp_width=512, heads=4, layers=4, patch_size=16, image_size=128),
        decoder=DecoderConfig(
            width=128,
            mlp_width=384,
            heads=4,
            kv_heads=4,
            layers=4,
            vocab_size=640,
            rope_base=100.0,
            # From scratch, attention learns to find a token by what it is, the beginning of copying, several times sooner with
            # blocks that begin small beside larger embeddings.
            embedding_stddev=128**-0.5,
            residual_init_scale=0.3,
        ),
        max_length=256,
        # On two CPU cores a step takes 0.24 s unrolled, 0.27 s scanned; four layers compile quickly either way.
        scan_layers=False,
    ),
}

# config.json field -> (part, our field). None as part: the top level.
_FIELDS: dict[str, tuple[str | None, str]] = {
    "vit_hidden_dim": ("vision", "width"),
    "vit_inter_dim": ("vision", "mlp_width"),
    "vit_patch_size": ("vision", "patch_size"),
    "vit_img_size": ("vision", "image_size"),
    "vit_n_heads": ("vision", "heads"),
    "vit_n_blocks": ("vision", "layers"),
    "vit_ln_eps": ("vision", "layer_norm_eps"),
    "lm_hidden_dim": ("decoder", "width"),
    "lm_inter_dim": ("decoder", "mlp_width"),
    "lm_rms_eps": ("decoder", "rms_norm_eps"),
    "lm_re_base": ("decoder", "rope_base"),
    "lm_attn_scaling": ("decoder", "rope_scale"),
    "lm_max_position_embeddings": ("decoder", "max_positions"),
    "lm_vocab_size": ("decoder", "vocab_size"),
    "lm_n_heads": ("decoder", "heads"),
    "lm_n_kv_heads": ("decoder", "kv_heads"),
    "lm_n_blocks": ("decoder", "layers"),
    "lm_tie_weights": ("decoder", "tied_head"),
    "lm_max_length": (None, "max_length"),
    "mp_pixel_shuffle_factor": (None, "shuffle_factor"),
}
_TOKEN_FIELDS = {"image_token": "image", "mask_rgb_token": "mask_rgb", "mask_depth_token": "mask_depth"}
# Fields whose other values would be another model.
_FIXED = {"vit_cls_flag": False, "vit_dropout": 0.0, "lm_dropout": 0.0}


def config_from_torch(values: Mapping[str, Any]) -> SmolRGPTConfig:
    """Reads the PyTorch release's config.json (its parsed content).

    Missing fields, as in older checkpoints, take the published model's values. Raises ConfigError for a field
    whose value asks for another architecture, or when `mp_image_token_length` contradicts the sizes.
    """
    for name, expected in _FIXED.items():
        if values.get(name, expected) != expected:
            raise ConfigError(f"config.json: {name}={values[name]!r} is not supported, only {expected!r}")
    parts: dict[str | None, dict[str, Any]] = {None: {}, "vision": {}, "decoder": {}}
    for name, (part, ours) in _FIELDS.items():
        if name in values:
            parts[part][ours] = values[name]
    tokens = (
        {ours: values["vlm_extra_tokens"][name] for name, ours in _TOKEN_FIELDS.items()}
        if "vlm_extra_tokens" in values
        else {}
    )
    config = SmolRGPTConfig(
        vision=VisionConfig(**parts["vision"]),
        decoder=DecoderConfig(**parts["decoder"]),
        special_tokens=SpecialTokens(**tokens),
        **parts[None],
    )
    stated = values.get("mp_image_token_length", config.image_tokens)
    if stated != config.image_tokens:
        raise ConfigError(
            f"config.json: mp_image_token_length is {stated} but the sizes give {config.image_tokens} image tokens"
        )
    return config


def config_to_torch(config: SmolRGPTConfig, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Writes config.json for the PyTorch release: `base` (the imported file, or the release's defaults) updated by our values.

    Raises ConfigError for a model with parts other than that release's.
    """
    for name in ("depth_pathway", "refiners", "picture_tokens", "region_extent"):
        if (value := getattr(config, name)) != (published := getattr(SmolRGPTConfig(), name)):
            raise ConfigError(f"the PyTorch release has no model with {name} {value!r}, only {published!r}")
    result = dict(TORCH_DEFAULTS if base is None else base)
    for name, (part, ours) in _FIELDS.items():
        value = getattr(config if part is None else getattr(config, part), ours)
        if (
            base is None
            or name in base
            or value != getattr(SmolRGPTConfig() if part is None else getattr(SmolRGPTConfig(), part), ours)
        ):
            result[name] = value
    if base is None:
        result["mp_image_token_length"] = config.image_tokens
        result["lm_base_vocab_size"] = config.decoder.vocab_size - len(_TOKEN_FIELDS)
        result["vlm_extra_tokens"] = {
            name: getattr(config.special_tokens, ours) for name, ours in _TOKEN_FIELDS.items()
        }
    return result


CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TORCH_DEFAULTS: dict[str, Any] = {
    "vit_hidden_dim": 768,
    "vit_inter_dim": 3072,
    "vit_patch_size": 16,
    "vit_img_size": 256,
    "vit_n_heads": 12,
    "vit_dropout": 0.0,
    "vit_n_blocks": 12,
    "vit_ln_eps": 1e-06,
    "vit_cls_flag": False,
    "vit_model_type": "google/siglip2-base-patch16-256",
    "lm_hidden_dim": 960,
    "lm_inter_dim": 2560,
    "lm_rms_eps": 1e-05,
    "lm_re_base": 100000,
    "lm_max_position_embeddings": 8192,
    "lm_base_vocab_size": 49152,
    "extra_token_amount": 3,
    "lm_vocab_size": 49155,
    "lm_n_heads": 15,
    "lm_n_kv_heads": 5,
    "lm_dropout": 0.0,
    "lm_n_blocks": 32,
    "lm_attn_scaling": 1.0,
    "lm_max_length": 512,
    "lm_use_tokens": False,
    "lm_tie_weights": True,
    "lm_model_type": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "lm_tokenizer": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "lm_chat_template": CHAT_TEMPLATE,
    "lm_eos_token_id": 0,
    "mp_pixel_shuffle_factor": 2,
    "mp_image_token_length": 64,
    "vlm_extra_tokens": {
        "image_token": "<|image|>",
        "mask_rgb_token": "<mask_rgb>",
        "mask_depth_token": "<mask_depth>",
    },
    "vlm_load_backbone_weights": False,
    "vlm_restore_previous_state": True,
    "vlm_checkpoint_path": "checkpoints/vlm_checkpoints",
    "hf_repo_name": None,
    "stage": "sft",
}
