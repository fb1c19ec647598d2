"""Our model's numbers against live PyTorch, as a table."""

import contextlib
import ctypes
import gc
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import language
from benchmarks.comparison import DATA_FILES, NEW_TOKENS, TOLERANCE, Line, compare, describe_greedy, table
from benchmarks.shared import SIZES, progress, show
from convert.torch_model import TorchModel, left_padded, load_torch, random_torch
from eval.command_line import command_line
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.mapping import entries
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.images import load_depth, load_rgb
from smolrgpt_jax.data.masks import RLE, decode, resample
from smolrgpt_jax.errors import ConfigError, RunError, told
from smolrgpt_jax.files import read_json
from smolrgpt_jax.model import Model
from smolrgpt_jax.models.attention import packed_attention_mask
from smolrgpt_jax.models.mask_pooling import mask_pooling
from smolrgpt_jax.models.smolrgpt import bind, loss_sums

# Eight of the warehouse benchmark's published records with their real masks, 2 to 13 regions each.
QUESTIONS = 8
# Rows of the batch whose loss is differentiated: the 13 regions, the 10, and a question of two. All eight would need 8 GB more.
GRADIENT_ROWS = 3
ENCODED = (
    "vision_features_rgb vision_features_depth image_tokens depth_tokens rgb_refined depth_refined region_rgb region_depth"
).split()


class Inputs(NamedTuple):
    """What a model reads: ids, attention_mask: int32[B, S], left-padded; images, depths: float32[B, H, W, 3]; masks: B arrays
    uint8[1080, 1920, R]."""

    ids: np.ndarray
    attention_mask: np.ndarray
    images: np.ndarray
    depths: np.ndarray
    masks: list[np.ndarray]


class Conversations(NamedTuple):
    """Questions with their answers, the questions alone, and targets: int32[B, S], -100 where there is no loss."""

    whole: Inputs
    prompts: Inputs
    targets: np.ndarray

    def first(self, rows: int) -> tuple[Inputs, np.ndarray]:
        """`whole` and `targets` of the first rows."""
        return Inputs(*(values[:rows] for values in self.whole)), self.targets[:rows]


def read_conversations(config: SmolRGPTConfig) -> Conversations:
    """The eight questions, most regions first.

    They are about the one record whose picture and depth are at hand (mirrored for every second question, turned upside down for every
    second pair). SmolLM2's tokenizer is not at hand either: ids are those of the test suite's tokenizer, which has its structure but
    785 tokens; they are folded into smaller vocabularies, and the three tokens that stand for features take the last three ids, as
    published.
    """
    root = DATA_FILES / "real_warehouse"
    records = sorted(read_json(root / "records_with_masks.json", list), key=lambda r: -len(r["rle"]))[:QUESTIONS]
    tokenizer = ChatTokenizer.load(DATA_FILES / "text" / "tokenizer")
    vocab, pad = config.decoder.vocab_size, tokenizer.eos_id
    features = {tokenizer.image_id: vocab - 3, tokenizer.mask_rgb_id: vocab - 2, tokenizer.mask_depth_id: vocab - 1}
    if vocab < 32:
        raise ConfigError(f"a vocabulary of {vocab} tokens is too small for the questions")

    def fold(token: int) -> int:
        return features.get(token, token if token < vocab - 3 else 17 + token % (vocab - 20))

    whole, asked = [], []
    for record in records:
        user, assistant = (turn["value"] for turn in record["conversations"])
        rest, answer = tokenizer.question(user.replace("<image>", "").strip(), assistant)
        prefix = tokenizer.prefix(config.image_tokens)
        whole.append(np.array([fold(t) for t in (*prefix.tolist(), *rest.tolist())], np.int32))
        asked.append(len(prefix) + answer)
    ids, attention_mask = left_padded(whole, pad)
    targets = np.full_like(ids, -100)
    for row, tokens, start in zip(targets, whole, asked):
        row[start - len(tokens) - 1 : -1] = tokens[start:]
    size = config.vision.image_size
    image = load_rgb(root / "val" / "images" / "000315.png", size)
    depth = load_depth(root / "val" / "depths" / "000315_depth.png", size)
    turns = [(slice(None, None, (-1) ** (i // 2)), slice(None, None, (-1) ** i)) for i in range(len(records))]
    images, depths = (np.stack([picture[turn] for turn in turns]) for picture in (image, depth))
    regions = [
        [RLE(mask["size"][0], mask["size"][1], mask["counts"].encode()) for mask in record["rle"]] for record in records
    ]
    masks = [np.stack([decode(region) for region in some], axis=-1) for some in regions]
    prompts = left_padded([tokens[:start] for tokens, start in zip(whole, asked)], pad)
    pictures = (images, depths, masks)
    return Conversations(Inputs(ids, attention_mask, *pictures), Inputs(*prompts, *pictures), targets)


def run_torch(model: TorchModel, batch: Conversations) -> dict[str, np.ndarray]:
    """PyTorch's intermediates, logits, losses, greedy tokens with their lead, and gradients."""
    import torch

    def losses(logits: torch.Tensor, targets: np.ndarray, reduction: str) -> torch.Tensor:
        targets = torch.tensor(targets, dtype=torch.int64)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)

    store: dict[str, np.ndarray] = {}
    with torch.no_grad():
        out = model.outputs(*batch.whole)
        store["embeddings"] = model.embed(batch.whole.ids, batch.whole.attention_mask, out, batch.whole.masks).numpy()
        per_token = losses(out["logits"], batch.targets, "none").reshape(batch.targets.shape)
        store["losses"] = (per_token.sum(1).numpy() / (batch.targets >= 0).sum(1)).astype(np.float32)
    for name, value in out.items():
        store[name] = value.numpy()
    del out, per_token
    progress("PyTorch: greedy tokens")
    ids, logits = model.generate_with_logits(*batch.prompts, NEW_TOKENS)
    best = np.sort(np.partition(logits, -2, axis=-1)[..., -2:], axis=-1)
    store["greedy"] = ids
    store["leads"] = best[..., 1] - best[..., 0]
    del logits
    progress("PyTorch: gradients")
    few, targets = batch.first(GRADIENT_ROWS)
    loss = losses(model.outputs(*few)["logits"], targets, "mean")
    loss.backward()
    store["gradient_loss"] = np.float32(loss.item())
    return store | {f"gradient.{name}": gradient for name, gradient in model.gradients().items()}


def compare_modules(model: Model, batch: Inputs, store: Mapping[str, np.ndarray]) -> Iterator[Line]:
    """Every module by itself, fed with what PyTorch's module was fed with."""
    grid, vocab = model.config.mask_grid, model.config.decoder.vocab_size

    def run(function, *inputs: np.ndarray) -> np.ndarray:
        program = jax.jit(lambda p, x: function(bind(model.config, p, model.compute), *x))
        return np.asarray(program(model.params, [jnp.asarray(x) for x in inputs]))

    got = run(lambda m, x: m.vision_encoder(x), batch.depths)
    yield compare("encoder", got, store["vision_features_depth"])
    weights = np.zeros((len(batch.ids), max(mask.shape[-1] for mask in batch.masks), grid, grid), np.float32)
    for row, mask in enumerate(batch.masks):
        weights[row, : mask.shape[-1]] = resample(mask, grid).transpose(2, 0, 1)
    for kind, label, tokens in (("rgb", "RGB", "image_tokens"), ("depth", "depth", "depth_tokens")):
        refined = store[f"{kind}_refined"]
        got = run(lambda m, x: getattr(m, f"{kind}_connector")(x), store[f"vision_features_{kind}"])
        yield compare(f"{label} connector", got, store[tokens])
        got = run(lambda m, x: getattr(m, f"{kind}_refiner")(x), store[tokens])
        yield compare(f"{label} refiner", got, refined)
        pooled = run(lambda m, x, w: mask_pooling(x, w), refined, weights)
        got = np.concatenate([row[: mask.shape[-1]] for row, mask in zip(pooled, batch.masks)])
        yield compare(f"{label} mask pooling", got, store[f"region_{kind}"])
    valid = batch.attention_mask != 0
    positions = np.maximum(np.cumsum(batch.attention_mask, axis=1) - 1, 0)

    def hidden(m, x):
        mask = packed_attention_mask(batch.attention_mask, jnp.zeros_like(batch.attention_mask))
        return m.decoder(x, positions, mask)[0]

    yield compare("decoder", run(hidden, store["embeddings"])[valid], store["hidden"][valid])
    got = run(lambda m, x: m.decoder.logits(x), store["hidden"])[..., :vocab]
    yield compare("head", got[valid], store["logits"][valid])


def compare_whole(model: Model, batch: Conversations, store: Mapping[str, np.ndarray]) -> Iterator[Line]:
    """From pictures and ids to intermediates, logits and losses in one pass."""
    out = model.forward(*batch.whole)
    for name in ENCODED:
        yield compare(name, out[name], store[name])
    valid = batch.whole.attention_mask != 0
    yield compare("hidden", out["hidden"][valid], store["hidden"][valid])
    yield compare("logits", out["logits"][valid], store["logits"][valid], TOLERANCE)
    sums, counts = loss_sums(out["logits"], batch.targets)
    ours, theirs = np.asarray(sums / counts), store["losses"]
    difference = np.abs(ours - theirs)
    yield Line("losses of the questions", float(difference.max()), float((difference / theirs).max()), TOLERANCE)


def compare_gradients(model: Model, batch: Conversations, store: Mapping[str, np.ndarray]) -> Iterator[Line]:
    """The mean loss of a few questions and its gradients to every parameter; per tower, the tensor that differs most."""
    few, targets = batch.first(GRADIENT_ROWS)
    arrays = model._batch(*few)
    config, compute = model.config, model.compute.replace(remat="full")

    def mean_loss(params):
        sums, counts = loss_sums(bind(config, params, compute)(arrays)["logits"], targets)
        return sums.sum() / counts.sum()

    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(model.params)
    theirs = float(store["gradient_loss"])
    difference = abs(float(loss) - theirs)
    yield Line("loss that is differentiated", difference, difference / theirs, TOLERANCE)
    lines: dict[str, list[Line]] = defaultdict(list)
    compared = set()
    for entry in entries(config):
        tied = config.decoder.tied_head and entry.torch == "decoder.token_embedding.weight"
        name = "decoder.head.weight" if tied else entry.torch
        compared.add(f"gradient.{name}")
        value = gradients[entry.jax] if entry.layer is None else gradients[entry.jax][entry.layer]
        tower = entry.jax.split("/")[0].removeprefix("vision_").replace("rgb", "RGB").replace("_", " ")
        about = f"gradients of the {tower} (largest: {name})"
        ours, theirs = entry.to_torch(np.asarray(value)), store[f"gradient.{name}"]
        lines[tower].append(compare(about, ours, theirs, TOLERANCE))
    if only := {name for name in store if name.startswith("gradient.")} - compared:
        raise RunError(f"only PyTorch has {', '.join(sorted(only))}")
    yield from (max(found, key=lambda line: line.relative) for found in lines.values())


def release_memory() -> None:
    """Gives freed memory back to the system, which glibc otherwise keeps for itself."""
    gc.collect()
    with contextlib.suppress(OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def measure(size: str, folder: Path | None, seed: int) -> tuple[str, bool]:
    """Runs both sides; returns the report and whether every tolerance was met."""
    with tempfile.TemporaryDirectory(prefix="parity-") as scratch:
        progress("PyTorch: weights")
        if folder is None:
            theirs = random_torch(SIZES[size], seed)
            folder = Path(scratch) / "checkpoint"
            theirs.save(folder)
            weights = f"random weights, seed {seed}"
        else:
            theirs = load_torch(folder)
            weights = f"weights of `{folder}`"
        batch = read_conversations(theirs.config)
        parameters = sum(p.numel() for p in theirs.network.parameters())
        progress("PyTorch: forward pass")
        # On the disk, so that only one model is in memory at a time.
        np.savez(Path(scratch) / "torch.npz", **run_torch(theirs, batch))
        store = np.load(Path(scratch) / "torch.npz")
        del theirs
        release_memory()
        progress("JAX: weights")
        ours = load(folder)
        progress("JAX: modules")
        modules = list(compare_modules(ours, batch.whole, store))
        progress("JAX: forward pass")
        whole = list(compare_whole(ours, batch, store))
        release_memory()
        progress("JAX: greedy tokens")
        tokens = ours.generate(*batch.prompts, max_new_tokens=NEW_TOKENS)
        greedy, leads = store["greedy"], store["leads"]
        progress("JAX: gradients")
        gradients = list(compare_gradients(ours, batch, store))
    logits = next(line for line in whole if line.name == "logits")
    passed = np.array_equal(tokens, greedy) and all(line.passed for line in modules + whole + gradients)
    regions = sorted(mask.shape[-1] for mask in batch.whole.masks)
    lengths = batch.whole.attention_mask.sum(1)
    parts = [
        f"{parameters:,} parameters, {weights}; float32, CPU; {len(lengths)} real questions of {lengths.min()} to "
        f"{lengths.max()} tokens with {regions[0]} to {regions[-1]} regions. Gradients: of {GRADIENT_ROWS} of them.",
        "Each module by itself, given PyTorch's inputs:",
        table(modules),
        "The whole model:",
        table(whole + gradients),
        describe_greedy(greedy, tokens, leads, logits.difference),
        "Every tolerance is met." if passed else "**A tolerance is missed.**",
    ]
    return "\n\n".join(parts), passed


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 1 if a tolerance is missed."""
    a = command_line("benchmarks.parity", __doc__, size=SIZES).parse_args(arguments)
    jax.config.update("jax_default_matmul_precision", "highest")
    compared = a.language or a.folder or f"a random model of size {a.size}"
    progress(f"comparing {compared} in PyTorch and JAX")
    report, passed = language.measure(a.language) if a.language else measure(a.size, a.folder, a.seed)
    show(report, a.out)
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
