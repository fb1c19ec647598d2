"""Random Longformer classifiers of transformers, to compare with."""

from __future__ import annotations

from typing import Any

import torch
import transformers


def random_classifier(seed: int, **fields: Any) -> transformers.LongformerForSequenceClassification:
    """A tiny classifier whose weights are large enough for attention to differ from a mean."""
    torch.manual_seed(seed)
    defaults = {
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 66,
        "attention_window": 8,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "num_labels": 4,
    }
    model = transformers.LongformerForSequenceClassification(
        transformers.LongformerConfig(**{**defaults, **fields})
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 and "embeddings" not in name else 0.2
            parameter.copy_((1.0 if name.endswith("LayerNorm.weight") else 0.0) + scale * torch.randn_like(parameter))
    return model
