"""The PyTorch release's config.json: read into our configuration, written from it.

Field names are those of a checkpoint folder saved by the PyTorch release; fields this model does not use are the caller's to
keep (`smolrgpt_jax.checkpoint.torch` writes them back unchanged).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, SpecialTokens, VisionConfig
from smolrgpt_jax.errors import ConfigError

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
    if type(config) is not SmolRGPTConfig:
        raise ConfigError(f"the PyTorch release has no model of {type(config).__name__}")
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
