"""The parts that see, as ONNX programs: pictures -> tokens, and tokens -> the fine maps that regions are pooled from."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from smolrgpt_jax.config import REFINER_STAGES, SmolRGPTConfig
from smolrgpt_jax.export.onnx_graph import Arrays, Graph, Quant
from smolrgpt_jax.models.refiner import NORM_EPS

Params = Mapping[str, Any]


class _Layers:
    """Layers of one program, by the names of their parameters."""

    def __init__(self, graph: Graph, params: Params, quant: Quant | None):
        self.graph, self.params, self.quant = graph, params, quant
        self._read: dict[str, np.ndarray] = {}

    def param(self, name: str, layer: int | None = None) -> np.ndarray:
        """One layer's, where layers are stacked."""
        if name not in self._read:
            self._read[name] = np.asarray(self.params[name], np.float32)
        return self._read[name] if layer is None else self._read[name][layer]

    def dense(self, x: str, name: str, inputs: int, layer: int | None = None) -> str:
        """float32[..., K] -> float32[..., N]; inputs: K."""
        rows = self.param(f"{name}/kernel", layer).reshape(inputs, -1).T
        bias = self.param(f"{name}/bias", layer).reshape(-1) if f"{name}/bias" in self.params else None
        return self.graph.product(x, self.graph.matrix(rows, self.quant), bias)

    def norm(self, x: str, name: str, eps: float, layer: int | None = None) -> str:
        scale, bias = (self.graph.weight(self.param(f"{name}/{part}", layer)) for part in ("scale", "bias"))
        return self.graph("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps)

    def reshape(self, x: str, *shape: int) -> str:
        return self.graph("Reshape", x, self.graph.ints(*shape))

    def transpose(self, x: str, *order: int) -> str:
        return self.graph("Transpose", x, perm=order)


def write_encoder(graph: Graph, config: SmolRGPTConfig, params: Params, quant: Quant | None = None) -> dict[str, Any]:
    """Writes pictures float32[N, H, W, 3] -> image_tokens float32[1, T, D] of the first, depth_tokens float32[N - 1, T, D]."""
    v, make = config.vision, _Layers(graph, params, quant)
    grid, patch, factor, side = v.grid, v.patch_size, config.shuffle_factor, config.token_grid
    x = make.transpose(make.reshape("pictures", -1, grid, patch, grid, patch, 3), 0, 1, 3, 2, 4, 5)
    x = make.reshape(x, -1, grid * grid, patch * patch * 3)
    x = make.dense(x, "vision_encoder/patch_embedding", patch * patch * 3)
    x = graph("Add", x, graph.weight(make.param("vision_encoder/position_embedding")))
    block = "vision_encoder/blocks"
    for i in range(v.layers):
        h = make.norm(x, f"{block}/ln1", v.layer_norm_eps, i)
        parts = [f"{part}_{i}" for part in ("queries", "keys", "values")]
        graph("Split", make.dense(h, f"{block}/qkv_proj", v.width, i), into=parts, axis=-1, num_outputs=3)
        h = graph("!MultiHeadAttention", *parts, num_heads=v.heads)
        x = graph("Add", x, make.dense(h, f"{block}/out_proj", v.width, i))
        h = make.norm(x, f"{block}/ln2", v.layer_norm_eps, i)
        h = graph("Gelu", make.dense(h, f"{block}/fc1", v.width, i), approximate="tanh")
        x = graph("Add", x, make.dense(h, f"{block}/fc2", v.mlp_width, i))
    x = make.norm(x, "vision_encoder/norm", v.layer_norm_eps)
    inputs = factor * factor * v.width
    x = make.transpose(make.reshape(x, -1, side, factor, side, factor, v.width), 0, 1, 3, 2, 4, 5)
    x = make.reshape(x, -1, side * side, inputs)
    for name, connector, place in (("image_tokens", "rgb_connector", 0), ("depth_tokens", "depth_connector", 1)):
        seen = graph("Slice", x, graph.ints(place), graph.ints(place + 1), graph.ints(0))
        graph("Identity", make.dense(seen, f"{connector}/proj", inputs), into=name)
    shape = (side * side, config.decoder.width)
    made: Arrays = {TOKENS[0]: (np.float32, (1, *shape)), TOKENS[1]: (np.float32, ("n - 1", *shape))}
    return graph.save({"pictures": (np.float32, ("n", v.image_size, v.image_size, 3))}, made)


TOKENS = ("image_tokens", "depth_tokens")


def write_refiners(graph: Graph, config: SmolRGPTConfig, params: Params, quant: Quant | None = None) -> dict[str, Any]:
    """Writes image_tokens and depth_tokens, float32[1, T, D] each -> maps float32[2, g * g, D], row-major."""
    width, side, make = config.decoder.width, config.token_grid, _Layers(graph, params, quant)
    maps = []
    for tokens, refiner in zip(TOKENS, ("rgb_refiner", "depth_refiner")):
        x = make.reshape(tokens, -1, width)
        for stage in range(1, REFINER_STAGES + 1):
            # One product makes the four cells of each cell's block, one after the other.
            rows = make.param(f"{refiner}/up{stage}/kernel").reshape(width, -1).T
            bias = np.tile(make.param(f"{refiner}/up{stage}/bias"), 4)
            x = make.reshape(graph.product(x, graph.matrix(rows, quant), bias), -1, width)
            if stage < REFINER_STAGES:
                x = make.norm(x, f"{refiner}/norm{stage}", NORM_EPS)
            x = graph("Gelu", x)
        x = make.reshape(x, side, side, *(2,) * 2 * REFINER_STAGES, width)
        x = make.transpose(x, 0, 2, 4, 6, 1, 3, 5, 7, 8)
        maps.append(make.reshape(x, 1, config.mask_grid**2, width))
    graph("Concat", *maps, into="maps", axis=0)
    made = (np.float32, (2, config.mask_grid**2, width))
    return graph.save({name: (np.float32, (1, side * side, width)) for name in TOKENS}, {"maps": made})
