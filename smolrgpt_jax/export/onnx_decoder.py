"""A Llama-shaped decoder as an ONNX program: tokens and a key-value cache -> logits of the next token, cache.

The same program reads a prompt, goes on behind what the cache holds, and takes one token more.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from smolrgpt_jax.config import DecoderConfig
from smolrgpt_jax.export.onnx_graph import INT8, Arrays, Graph, Quant
from smolrgpt_jax.models.smollm import inverse_frequencies


def write_decoder(
    graph: Graph,
    config: DecoderConfig,
    params: Mapping[str, np.ndarray],
    positions: int,
    quant: Quant | None = None,
    features: bool = False,
) -> dict[str, Any]:
    """Writes the program.

    graph: empty; params: named as ours, with or without those of other parts; positions: most tokens of a prompt and its answer;
    features: whether features can take tokens' places.

    Inputs: input_ids int64[B, S]; keys_i, values_i float32[B, G, T, D], the cache of each layer, in whose first columns what came
    before lies; last int32[B], the column of the last token read now, and total int32[], last + 1; with features also
    feature_index int64[B, S], -1 for text, and features float32[B, F, W], F at least 1. Outputs: logits float32[B, V] of the last
    token; new_keys_i, new_values_i, which may be the memory of the inputs: only columns of the new tokens are written then. B is 1
    where several tokens are read behind others.
    """
    width, dim, eps = config.width, config.head_dim, config.rms_norm_eps

    def param(name: str) -> np.ndarray:
        return np.asarray(params[f"decoder/{name}"], np.float32)

    names = ("norm1/scale", "norm2/scale", *(f"{p}_proj/kernel" for p in ("q", "k", "v", "out", "gate", "up", "down")))
    stacked = {name: param(f"blocks/{name}") for name in names}
    # Four bits of what tokens are looked up in and chosen by cost answers more than they save.
    tables = [param(name)[: config.vocab_size] for name in ("token_embedding", "head")[: 2 - config.tied_head]]
    table, head = ([graph.matrix(rows, quant and INT8) for rows in tables] * 2)[:2]
    angles = np.outer(np.arange(positions, dtype=np.float32), inverse_frequencies(dim, config.rope_base))
    turns = [graph.weight(f(angles).astype(np.float32) * np.float32(config.rope_scale)) for f in (np.cos, np.sin)]

    def product(x: str, layer: int, *projections: str) -> str:
        inputs = config.mlp_width if projections == ("down",) else width
        kernels = [stacked[f"{name}_proj/kernel"][layer] for name in projections]
        rows = np.concatenate([kernel.reshape(inputs, -1).T for kernel in kernels])
        return graph.product(x, graph.matrix(rows, quant))

    def add_and_norm(branch: str, x: str, scale: np.ndarray) -> tuple[str, str]:
        sums = f"sum_of_{branch}"
        into = (f"norm_of_{branch}", "", "", sums)
        graph("!SkipSimplifiedLayerNormalization", branch, x, graph.weight(scale), into=into, epsilon=eps)
        return into[0], sums

    x = graph.lookup(table, "input_ids")
    if features:
        row = graph("Unsqueeze", graph("Max", "feature_index", graph.ints(0)), graph.ints(-1))
        taken = graph("Unsqueeze", graph("GreaterOrEqual", "feature_index", graph.ints(0)), graph.ints(-1))
        x = graph("Where", taken, graph("GatherND", "features", row, batch_dims=1), x)
    norms = [*(stacked[f"norm{n}/scale"][i] for i in range(config.layers) for n in (1, 2)), param("norm/scale")]
    # ONNX Runtime has this one under ONNX's own name.
    h = graph("SimplifiedLayerNormalization", x, graph.weight(norms[0]), axis=-1, epsilon=eps, stash_type=1)
    for i in range(config.layers):
        attended, *_ = graph(
            "!GroupQueryAttention",
            *(product(h, i, "q", "k", "v"), "", "", f"keys_{i}", f"values_{i}", "last", "total", *turns),
            into=(f"attended_{i}", f"new_keys_{i}", f"new_values_{i}"),
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            do_rotary=1,
        )
        h, x = add_and_norm(product(attended, i, "out"), x, norms[2 * i + 1])
        gate, up = graph("Split", product(h, i, "gate", "up"), into=(f"gate_{i}", f"up_{i}"), axis=-1, num_outputs=2)
        gated = graph("Mul", graph("!QuickGelu", gate, alpha=1.0), up)
        h, x = add_and_norm(product(gated, i, "down"), x, norms[2 * i + 2])
    graph.product(graph("Gather", h, graph.weight(np.array(-1)), axis=1), head, into="logits")
    ids = ("b", "s")
    given: dict[str, Any] = {"input_ids": (np.int64, ids), "last": (np.int32, ("b",)), "total": (np.int32, ())}
    if features:
        given |= {"feature_index": (np.int64, ids), "features": (np.float32, ("b", "f", width))}
    cache = [f"{part}_{i}" for i in range(config.layers) for part in ("keys", "values")]
    kept: Arrays = {name: (np.float32, ("b", config.kv_heads, "t", dim)) for name in cache}
    made = {f"new_{name}": array for name, array in kept.items()}
    return graph.save({**given, **kept}, {"logits": (np.float32, ("b", config.vocab_size)), **made})
