"""The PyTorch release's config.json: read into our configuration, written from it.

Field names are those of a checkpoint folder saved by the PyTorch release; fields this model does not use are the caller's to
keep (`smolrgpt_jax.checkpoint.torch` writes them back unchanged).
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, SpecialTokens, VisionConfig
from smolrgpt_jax.errors import ConfigError

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Ours(str):
    """Dotted path of a field of our configuration."""


# Fields in the release's order, with our field, a function of our configuration, or the value that the release writes.
FIELDS: dict[str, Any] = {
    "vit_hidden_dim": Ours("vision.width"),
    "vit_inter_dim": Ours("vision.mlp_width"),
    "vit_patch_size": Ours("vision.patch_size"),
    "vit_img_size": Ours("vision.image_size"),
    "vit_n_heads": Ours("vision.heads"),
    "vit_dropout": 0.0,
    "vit_n_blocks": Ours("vision.layers"),
    "vit_ln_eps": Ours("vision.layer_norm_eps"),
    "vit_cls_flag": False,
    "vit_model_type": "google/siglip2-base-patch16-256",
    "lm_hidden_dim": Ours("decoder.width"),
    "lm_inter_dim": Ours("decoder.mlp_width"),
    "lm_rms_eps": Ours("decoder.rms_norm_eps"),
    "lm_re_base": Ours("decoder.rope_base"),
    "lm_max_position_embeddings": Ours("decoder.max_positions"),
    "lm_base_vocab_size": lambda config: config.decoder.vocab_size - len(TOKENS),
    "extra_token_amount": 3,
    "lm_vocab_size": Ours("decoder.vocab_size"),
    "lm_n_heads": Ours("decoder.heads"),
    "lm_n_kv_heads": Ours("decoder.kv_heads"),
    "lm_dropout": 0.0,
    "lm_n_blocks": Ours("decoder.layers"),
    "lm_attn_scaling": Ours("decoder.rope_scale"),
    "lm_max_length": Ours("max_length"),
    "lm_use_tokens": False,
    "lm_tie_weights": Ours("decoder.tied_head"),
    "lm_model_type": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "lm_tokenizer": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "lm_chat_template": CHAT_TEMPLATE,
    "lm_eos_token_id": 0,
    "mp_pixel_shuffle_factor": Ours("shuffle_factor"),
    "mp_image_token_length": lambda config: config.image_tokens,
    "vlm_extra_tokens": lambda config: {name: getattr(config.special_tokens, ours) for name, ours in TOKENS.items()},
    "vlm_load_backbone_weights": False,
    "vlm_restore_previous_state": True,
    "vlm_checkpoint_path": "checkpoints/vlm_checkpoints",
    "hf_repo_name": None,
    "stage": "sft",
}
TOKENS = {"image_token": "image", "mask_rgb_token": "mask_rgb", "mask_depth_token": "mask_depth"}
FIXED = ("vit_cls_flag", "vit_dropout", "lm_dropout")  # other values would be another model


def config_from_torch(values: Mapping[str, Any]) -> SmolRGPTConfig:
    """Reads the PyTorch release's config.json (its parsed content).

    Missing fields, as in older checkpoints, take the published model's values. Raises ConfigError for a field
    whose value asks for another architecture, or when `mp_image_token_length` contradicts the sizes.
    """
    for name in FIXED:
        if values.get(name, FIELDS[name]) != FIELDS[name]:
            raise ConfigError(f"config.json: {name}={values[name]!r} is not supported, only {FIELDS[name]!r}")
    parts: dict[str, dict[str, Any]] = {"": {}, "vision": {}, "decoder": {}}
    for name, ours in FIELDS.items():
        if isinstance(ours, Ours) and name in values:
            part, _, field = ours.rpartition(".")
            parts[part][field] = values[name]
    if "vlm_extra_tokens" in values:
        tokens = {ours: values["vlm_extra_tokens"][name] for name, ours in TOKENS.items()}
        parts[""]["special_tokens"] = SpecialTokens(**tokens)
    vision, decoder = VisionConfig(**parts["vision"]), DecoderConfig(**parts["decoder"])
    config = SmolRGPTConfig(vision=vision, decoder=decoder, **parts[""])
    stated = values.get("mp_image_token_length", config.image_tokens)
    if stated != config.image_tokens:
        raise ConfigError(
            f"config.json: mp_image_token_length is {stated} but the sizes give {config.image_tokens} image tokens"
        )
    return config


def config_to_torch(config: SmolRGPTConfig, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Writes config.json for the PyTorch release: `base` (the imported file) updated by our values, or the release's own fields.

    Raises ConfigError for a model with parts other than that release's.
    """
    if type(config) is not SmolRGPTConfig:
        raise ConfigError(f"the PyTorch release has no model of {type(config).__name__}")
    result = dict(base or {})
    for name, value in FIELDS.items():
        if isinstance(value, Ours):
            published, value = (attrgetter(value)(c) for c in (SmolRGPTConfig(), config))
            if base is None or name in base or value != published:
                result[name] = value
        elif base is None:
            result[name] = value(config) if callable(value) else value
    return result
