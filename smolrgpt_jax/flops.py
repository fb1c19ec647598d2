"""Floating-point operations of the model by its sizes: matrix products only, two per multiply-add."""

from __future__ import annotations

from dataclasses import dataclass

from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.training.stages import Stage


@dataclass(frozen=True)
class RowFlops:
    """Forward FLOPs of one packed row, part by part.

    In a causal row only half of the attention scores are needed; all are counted, as they are computed.
    """

    patches: float
    encoder: float
    rgb_connector: float
    depth_connector: float
    refiners: float
    pooling: float
    blocks: float
    head: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def row_flops(config: SmolRGPTConfig, shape: RowShape) -> RowFlops:
    """Forward FLOPs of one packed row of this shape; pictures count whether used or not."""
    v, d = config.vision, config.decoder
    patches, width = v.grid**2, d.width
    kinds = 2 if shape.regions else 1  # RGB and depth
    weights = v.layers * (4 * v.width**2 + 2 * v.width * v.mlp_width)
    encoder = 2 * patches * weights + v.layers * 4 * patches**2 * v.width
    connector = 2 * config.image_tokens * v.width * config.shuffle_factor**2 * width
    refiner = sum(2 * config.image_tokens * 4**stage * width * 4 * width for stage in range(3))
    pooling = 2 * shape.regions * config.mask_grid**2 * width
    kv_width = d.kv_heads * d.head_dim
    weights = d.layers * (2 * width**2 + 2 * width * kv_width + 3 * width * d.mlp_width)
    return RowFlops(
        patches=shape.pictures * kinds * 2 * patches * 3 * v.patch_size**2 * v.width,
        encoder=shape.pictures * kinds * encoder,
        rgb_connector=shape.pictures * connector,
        depth_connector=shape.pictures * connector * (kinds - 1),
        refiners=shape.pictures * refiner * 2 * (kinds - 1),
        pooling=shape.pictures * pooling * 2 * (kinds - 1),
        blocks=2 * shape.tokens * weights + d.layers * 4 * shape.tokens**2 * width,
        head=2 * shape.tokens * d.padded_vocab_size * width,
    )


def train_flops(config: SmolRGPTConfig, shape: RowShape, stage: Stage, remat: bool) -> tuple[float, float]:
    """FLOPs of one packed row in training: (those the model needs, those computed, with rematerialisation of everything or none).

    Backward, a trained product costs twice its forward; one that only passes a gradient on, or whose inputs need none, once.
    What feeds nothing trained has no backward at all. The difference of the two is the blocks' second forward, without each
    block's last product, on which no gradient depends.
    """
    parts = row_flops(config, shape)
    trained = {
        name
        for name in ("encoder", "rgb_connector", "depth_connector", "refiners", "blocks")
        if stage.group_of(_PARAMETERS[name]).peak is not None
    }

    def backward(name: str, before: bool) -> float:
        """Multiples of the forward: one for the weights if trained, one for the input if something before it is."""
        return (name in trained) + before

    connectors = "rgb_connector" in trained or "depth_connector" in trained or "encoder" in trained
    needed = parts.total
    needed += (parts.encoder * 2 + parts.patches) * ("encoder" in trained)
    needed += parts.rgb_connector * backward("rgb_connector", "encoder" in trained)
    needed += parts.depth_connector * backward("depth_connector", "encoder" in trained)
    needed += parts.refiners * backward("refiners", connectors)
    # Masks are data: pooling passes a gradient to the map only.
    needed += parts.pooling * (connectors or "refiners" in trained)
    # Attention has no weights: both its inputs get a gradient, trained or not.
    attention = config.decoder.layers * 4 * shape.tokens**2 * config.decoder.width
    needed += (parts.blocks - attention) * backward("blocks", True) + 2 * attention
    needed += parts.head * backward("blocks", True)
    v, d = config.vision, config.decoder
    again = parts.blocks - 2 * shape.tokens * d.layers * d.width * d.mlp_width
    if "encoder" in trained:
        pictures = shape.pictures * (2 if shape.regions else 1)
        again += parts.encoder - pictures * 2 * v.grid**2 * v.layers * v.width * v.mlp_width
    return needed, needed + (again if remat else 0.0)


# A parameter of each part, by which its stage group is found.
_PARAMETERS = {
    "encoder": "vision_encoder/norm/scale",
    "rgb_connector": "rgb_connector/proj/kernel",
    "depth_connector": "depth_connector/proj/kernel",
    "refiners": "rgb_refiner/up1/kernel",
    "blocks": "decoder/norm/scale",
}
