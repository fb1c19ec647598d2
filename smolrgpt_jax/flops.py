"""Floating-point operations of the model by its sizes: matrix products only, two per multiply-add."""

import functools
import timeit
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from smolrgpt_jax.config import RematPolicy, SmolRGPTConfig


@dataclass(frozen=True)
class Part:
    """Matrix products of one part of the model over one packed row."""

    flops: float  # forward
    # What the operands come from: names of other parts and of parameters (one stands for all of the part); nothing for data. Backward,
    # each operand that needs a gradient costs as much as the forward.
    left: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    # FLOPs of a second forward under rematerialisation, which leaves out each block's last product, on which no gradient depends; 0
    # where nothing is rematerialised.
    again: float = 0.0


@functools.singledispatch
def row_parts(config: SmolRGPTConfig, tokens: int, pictures: int, regions: int, answers: int = 0) -> dict[str, Part]:
    """The parts of a packed row of so many tokens, pictures and regions of each picture, by name.

    Logits are counted for `answers` tokens, 0 for all. Pictures count whether used or not; without regions there is no depth. In a causal row only half of the attention scores are
    needed; all are counted, as they are computed. A subclass of the configuration registers its own parts.
    """
    v, d = config.vision, config.decoder
    patches, width = v.grid**2, d.width
    seen = pictures * (2 if regions else 1)  # RGB and depth
    embedding = 2 * seen * patches * 3 * v.patch_size**2 * v.width
    mlp = 2 * seen * patches * v.layers * v.width * v.mlp_width
    projections = 2 * seen * patches * v.layers * 4 * v.width**2
    scores = seen * v.layers * 4 * patches**2 * v.width
    encoder = 2 * mlp + projections + scores
    kv_width = d.kv_heads * d.head_dim
    down = 2 * tokens * d.layers * width * d.mlp_width
    blocks = 2 * tokens * d.layers * (2 * width**2 + 2 * width * kv_width) + 3 * down
    attention = d.layers * 4 * tokens**2 * width
    table = "decoder/token_embedding"
    features = ("rgb_connector", "rgb_pooling", "depth_pooling") if regions else ("rgb_connector",)
    parts = {
        "patches": Part(embedding, (), ("vision_encoder/patch_embedding/kernel",)),
        "encoder": Part(encoder, ("patches",), ("vision_encoder/blocks/fc1/kernel",), encoder - mlp),
        # With the token table among the inputs, the first block's too need a gradient where it is trained.
        "blocks": Part(blocks, (*features, table), ("decoder/blocks/up_proj/kernel",), blocks - down),
        "attention": Part(attention, ("blocks",), ("blocks",), attention),
        "head": Part(2 * (min(answers, tokens) or tokens) * d.padded_vocab_size * width, ("blocks",), (table,)),
    }
    connector = 2 * config.image_tokens * v.width * config.shuffle_factor**2 * width
    refiner = sum(2 * config.image_tokens * 4**stage * width * 4 * width for stage in range(3))
    pooling = 2 * regions * config.mask_grid**2 * width
    for kind in ("rgb", "depth") if regions else ("rgb",):
        parts[f"{kind}_connector"] = Part(pictures * connector, ("encoder",), (f"{kind}_connector/proj/kernel",))
        if regions:
            parts[f"{kind}_refiner"] = Part(pictures * refiner, (f"{kind}_connector",), (f"{kind}_refiner/up1/kernel",))
            parts[f"{kind}_pooling"] = Part(pictures * pooling, (f"{kind}_refiner",))
    return parts


def train_flops(parts: Mapping[str, Part], trained: Collection[str], remat: RematPolicy = "none") -> float:
    """FLOPs of one packed row in training: of what the model needs, or, with `remat` "full", of what is computed.

    trained: names of the trained parameters. What feeds nothing trained has no backward at all.
    """

    @functools.cache
    def has_gradient(name: str) -> bool:
        if name in parts:
            return any(map(has_gradient, (*parts[name].left, *parts[name].right)))
        return name in trained

    total = 0.0
    for name, part in parts.items():
        operands = sum(any(map(has_gradient, operand)) for operand in (part.left, part.right))
        total += part.flops * (1 + operands) + part.again * (remat == "full" and has_gradient(name))
    return total


def product_speed() -> float:
    """The best of eight products of two float32[2048, 2048], in GFLOP/s."""
    import jax

    square, matrix = jax.jit(lambda matrix: matrix @ matrix), jax.numpy.ones((2048, 2048))
    seconds = timeit.repeat(lambda: square(matrix).block_until_ready(), number=1, repeat=8)
    return 2e-9 * 2048**3 / min(seconds)
