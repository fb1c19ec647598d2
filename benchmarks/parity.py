"""Our model's numbers against live PyTorch, as a table.

python -m benchmarks.parity [--size tiny|small|full] [--folder CHECKPOINT] [--out FILE.md]

Runs the same weights, pictures, masks and questions through PyTorch (transformers' SiglipVisionModel and
LlamaForCausalLM, and plain layers between them, `convert.torch_model`) and through this model, float32 on the
CPU, one after the other, and prints the largest differences beside the tolerances of docs and tests. Exits
with 1 where a tolerance is missed. `--size full` is the published model, 475,697,280 parameters: it
takes 9 GB of memory, 5 GB of temporary disk and a quarter of an hour on two cores.

Weights are random, from a seed, unless `--folder` names a checkpoint in the PyTorch release's layout. The
questions are eight of the warehouse benchmark's published records with their real masks, 2 to 13 regions
each, about the one record whose picture and depth are at hand (mirrored for every second question, turned
upside down for every second pair). SmolLM2's tokenizer is not at hand either: ids are those of the test
suite's tokenizer, which has its structure but 785 tokens; they are folded into smaller vocabularies, and the
three tokens that stand for features take the last three ids, as published.

The greedy tokens of random weights are only worth comparing where their lead is larger than rounding: the
smallest distance of the two best logits is reported beside the largest difference of any logit.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from convert.torch_model import TorchModel, load_torch, random_torch
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.mapping import entries
from smolrgpt_jax.config import PRESETS, DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.images import load_depth, load_rgb
from smolrgpt_jax.data.masks import RLE, decode, resample
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.model import Model
from smolrgpt_jax.models.attention import packed_attention_mask
from smolrgpt_jax.models.mask_pooling import mask_pooling
from smolrgpt_jax.models.smolrgpt import bind, loss_sums

DATA_FILES = Path(__file__).parents[1] / "tests" / "data_files"

MODULE_TOLERANCE = 1e-5
LOGITS_TOLERANCE = 1e-4
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-4

QUESTIONS = 8
NEW_TOKENS = 64
# Rows of the batch whose loss is differentiated: the 13 regions, the 10, and a question of two. All eight
# would need 8 GB more.
GRADIENT_ROWS = 3

SIZES = {
    # That of the golden files, but for the vocabulary.
    "tiny": SmolRGPTConfig(
        vision=VisionConfig(width=64, mlp_width=256, heads=4, layers=2, patch_size=8, image_size=64),
        decoder=DecoderConfig(width=96, mlp_width=192, heads=6, kv_heads=2, layers=3, vocab_size=515),
    ),
    "small": SmolRGPTConfig(
        vision=VisionConfig(width=384, mlp_width=1536, heads=6, layers=6),
        decoder=DecoderConfig(width=384, mlp_width=1024, heads=6, kv_heads=2, layers=8),
    ),
    "full": PRESETS["smolrgpt"],
}

ENCODED = (
    "vision_features_rgb",
    "vision_features_depth",
    "image_tokens",
    "depth_tokens",
    "rgb_refined",
    "depth_refined",
    "region_rgb",
    "region_depth",
)
TOWERS = {
    "vision_encoder": "encoder",
    "MP": "RGB connector",
    "MP_depth": "depth connector",
    "rgb_refiner": "RGB refiner",
    "depth_refiner": "depth refiner",
    "decoder": "decoder",
}


@dataclass(frozen=True)
class Line:
    """One comparison: largest absolute difference, that over the largest value, and what it may be at
    most."""

    name: str
    difference: float
    relative: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(self.relative <= self.tolerance)


def compare(name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Line:
    if ours.shape != theirs.shape:
        raise ValueError(f"{name} has shape {ours.shape} here and {theirs.shape} in PyTorch")
    difference = float(np.abs(np.subtract(ours, theirs, dtype=np.float32)).max())
    return Line(name, difference, difference / float(np.abs(theirs).max()), tolerance)


@dataclass(frozen=True)
class Conversations:
    """Left-padded questions with their answers.

    ids, attention_mask, targets: int32[B, S], targets -100 where there is no loss; prompts: the same without
    the answers, (ids, attention_mask) int32[B, P]; images, depths: float32[B, H, W, 3]; masks: B arrays
    uint8[1080, 1920, R].
    """

    ids: np.ndarray
    attention_mask: np.ndarray
    targets: np.ndarray
    prompts: tuple[np.ndarray, np.ndarray]
    images: np.ndarray
    depths: np.ndarray
    masks: list[np.ndarray]

    @property
    def pictures(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        return self.images, self.depths, self.masks

    def first(self, rows: int) -> Conversations:
        prompts = (self.prompts[0][:rows], self.prompts[1][:rows])
        return Conversations(
            self.ids[:rows],
            self.attention_mask[:rows],
            self.targets[:rows],
            prompts,
            self.images[:rows],
            self.depths[:rows],
            self.masks[:rows],
        )


def read_conversations(config: SmolRGPTConfig) -> Conversations:
    """The eight questions, most regions first."""
    root = DATA_FILES / "real_warehouse"
    records = json.loads((root / "records_with_masks.json").read_text())
    records = sorted(records, key=lambda r: -len(r["rle"]))[:QUESTIONS]
    tokenizer = ChatTokenizer.load(DATA_FILES / "text" / "tokenizer")
    vocab, pad = config.decoder.vocab_size, tokenizer.eos_id
    features = {tokenizer.image_id: vocab - 3, tokenizer.mask_rgb_id: vocab - 2, tokenizer.mask_depth_id: vocab - 1}
    if vocab < 32:
        raise ValueError(f"a vocabulary of {vocab} tokens is too small for the questions")

    def fold(token: int) -> int:
        return features.get(token, token if token < vocab - 3 else 17 + token % (vocab - 20))

    whole, asked = [], []
    for record in records:
        user, assistant = (turn["value"] for turn in record["conversations"])
        rest, answer = tokenizer.question(user.replace("<image>", "").strip(), assistant)
        prefix = tokenizer.prefix(config.image_tokens)
        whole.append(np.array([fold(t) for t in (*prefix.tolist(), *rest.tolist())], np.int32))
        asked.append(len(prefix) + answer)
    ids, attention_mask = _left_padded(whole, pad)
    targets = np.full_like(ids, -100)
    for row, (tokens, start) in enumerate(zip(whole, asked)):
        answer = tokens[start:]
        targets[row, -len(answer) - 1 : -1] = answer
    size = config.vision.image_size
    image = load_rgb(root / "val" / "images" / "000315.png", size)
    depth = load_depth(root / "val" / "depths" / "000315_depth.png", size)
    turns = [(slice(None, None, (-1) ** (i // 2)), slice(None, None, (-1) ** i)) for i in range(len(records))]
    return Conversations(
        ids,
        attention_mask,
        targets,
        _left_padded([tokens[:start] for tokens, start in zip(whole, asked)], pad),
        np.stack([image[turn] for turn in turns]),
        np.stack([depth[turn] for turn in turns]),
        [
            np.stack([decode(RLE(*mask["size"], mask["counts"].encode())) for mask in record["rle"]], axis=-1)
            for record in records
        ],
    )


def _left_padded(rows: list[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    length = max(map(len, rows))
    ids = np.stack([np.pad(row, (length - len(row), 0), constant_values=pad) for row in rows])
    return ids, np.stack([np.arange(length) >= length - len(row) for row in rows]).astype(np.int32)


class Store:
    """Arrays of the PyTorch side on disk, so that only one model is in memory at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()

    def put(self, name: str, array: np.ndarray) -> None:
        np.save(self.folder / f"{name}.npy", array)

    def get(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def names(self, prefix: str) -> list[str]:
        return sorted(p.stem for p in self.folder.glob(f"{prefix}*.npy"))


def run_torch(model: TorchModel, batch: Conversations, store: Store) -> None:
    """Stores PyTorch's intermediates, logits, losses, greedy tokens with their lead, and gradients."""
    import torch

    def losses(logits: torch.Tensor, targets: np.ndarray, reduction: str) -> torch.Tensor:
        targets = torch.tensor(targets, dtype=torch.int64)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)

    with torch.no_grad():
        out = model.outputs(batch.ids, batch.attention_mask, *batch.pictures)
        store.put("embeddings", model.embed(batch.ids, batch.attention_mask, out, batch.masks).numpy())
        per_token = losses(out["logits"], batch.targets, "none").reshape(batch.targets.shape)
        store.put("losses", (per_token.sum(1).numpy() / (batch.targets >= 0).sum(1)).astype(np.float32))
    for name, value in out.items():
        store.put(name, value.numpy())
    del out, per_token
    progress("PyTorch: greedy tokens")
    ids, logits = model.generate_with_logits(*batch.prompts, *batch.pictures, NEW_TOKENS)
    best = np.sort(np.partition(logits, -2, axis=-1)[..., -2:], axis=-1)
    store.put("greedy", ids)
    store.put("leads", best[..., 1] - best[..., 0])
    del logits
    progress("PyTorch: gradients")
    few = batch.first(GRADIENT_ROWS)
    out = model.outputs(few.ids, few.attention_mask, *few.pictures)
    loss = losses(out["logits"], few.targets, "mean")
    del out
    loss.backward()
    store.put("gradient_loss", np.float32(loss.item()))
    for name, gradient in model.gradients().items():
        store.put(f"gradient.{name}", gradient)
    model.clear_gradients()


def compare_modules(model: Model, batch: Conversations, store: Store) -> Iterator[Line]:
    """Every module by itself, fed with what PyTorch's module was fed with."""
    config, grid = model.config, model.config.mask_grid

    def run(function, *inputs: np.ndarray) -> np.ndarray:
        program = jax.jit(lambda p, x: function(bind(config, p, model.compute), *x))
        return np.asarray(program(model.params, [jnp.asarray(x) for x in inputs]))

    yield compare(
        "encoder",
        run(lambda m, x: m.vision_encoder(x), batch.depths),
        store.get("vision_features_depth"),
        MODULE_TOLERANCE,
    )
    for kind, features, tokens in (
        ("rgb", "vision_features_rgb", "image_tokens"),
        ("depth", "vision_features_depth", "depth_tokens"),
    ):
        label = TOWERS[f"{kind}_refiner"].split()[0]
        connector, refiner, refined = f"{kind}_connector", f"{kind}_refiner", f"{kind}_refined"
        got = run(lambda m, x: getattr(m, connector)(x), store.get(features))
        yield compare(f"{label} connector", got, store.get(tokens), MODULE_TOLERANCE)
        got = run(lambda m, x: getattr(m, refiner)(x), store.get(tokens))
        yield compare(f"{label} refiner", got, store.get(refined), MODULE_TOLERANCE)
        most = max(mask.shape[-1] for mask in batch.masks)
        weights = np.zeros((len(batch.ids), most, grid, grid), np.float32)
        for row, mask in enumerate(batch.masks):
            weights[row, : mask.shape[-1]] = resample(mask, grid).transpose(2, 0, 1)
        pooled = run(lambda m, x, w: mask_pooling(x, w), store.get(refined), weights)
        got = np.concatenate([row[: mask.shape[-1]] for row, mask in zip(pooled, batch.masks)])
        yield compare(f"{label} mask pooling", got, store.get(f"region_{kind}"), MODULE_TOLERANCE)
    valid = batch.attention_mask != 0
    positions = np.maximum(np.cumsum(batch.attention_mask, axis=1) - 1, 0)

    def hidden(m, x):
        mask = packed_attention_mask(batch.attention_mask, jnp.zeros_like(batch.attention_mask))
        return m.decoder(x, positions, mask)[0]

    got = run(hidden, store.get("embeddings"))
    yield compare("decoder", got[valid], store.get("hidden")[valid], MODULE_TOLERANCE)
    vocab = config.decoder.vocab_size
    got = run(lambda m, x: m.decoder.logits(x), store.get("hidden"))[..., :vocab]
    yield compare("head", got[valid], store.get("logits")[valid], MODULE_TOLERANCE)


def compare_whole(model: Model, batch: Conversations, store: Store) -> Iterator[Line]:
    """From pictures and ids to intermediates, logits and losses in one pass."""
    out = model.forward(batch.ids, batch.attention_mask, *batch.pictures)
    for name in ENCODED:
        yield compare(name, out[name], store.get(name), MODULE_TOLERANCE)
    valid = batch.attention_mask != 0
    yield compare("hidden", out["hidden"][valid], store.get("hidden")[valid], MODULE_TOLERANCE)
    yield compare("logits", out["logits"][valid], store.get("logits")[valid], LOGITS_TOLERANCE)
    sums, counts = loss_sums(out["logits"], batch.targets)
    ours, theirs = np.asarray(sums / counts), store.get("losses")
    difference = np.abs(ours - theirs)
    yield Line("losses of the questions", float(difference.max()), float((difference / theirs).max()), LOSS_TOLERANCE)


def compare_gradients(model: Model, batch: Conversations, store: Store) -> Iterator[Line]:
    """The mean loss of a few questions and its gradients to every parameter; per tower, the tensor that
    differs most."""
    few = batch.first(GRADIENT_ROWS)
    arrays = model._batch(few.ids, few.attention_mask, *few.pictures)
    arrays["tokens"] = arrays.pop("input_ids")
    config, compute = model.config, model.compute.replace(remat="full")

    def mean_loss(params):
        sums, counts = loss_sums(bind(config, params, compute)(arrays)["logits"], few.targets)
        return sums.sum() / counts.sum()

    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(model.params)
    theirs = float(store.get("gradient_loss"))
    difference = abs(float(loss) - theirs)
    yield Line("loss that is differentiated", difference, difference / theirs, LOSS_TOLERANCE)
    worst: dict[str, Line] = {}
    stored = set(store.names("gradient."))
    for entry in entries(config):
        name = entry.torch
        if config.decoder.tied_head and name == "decoder.token_embedding.weight":
            name = "decoder.head.weight"
        if f"gradient.{name}" not in stored:
            raise ValueError(f"PyTorch has no gradient of {name}")
        stored.remove(f"gradient.{name}")
        value = gradients[entry.jax] if entry.layer is None else gradients[entry.jax][entry.layer]
        tower = name.split(".")[0]
        line = compare(
            f"gradients of the {TOWERS[tower]} (largest: {name})",
            entry.to_torch(np.asarray(value)),
            store.get(f"gradient.{name}"),
            GRADIENT_TOLERANCE,
        )
        if tower not in worst or line.relative > worst[tower].relative:
            worst[tower] = line
    if stored:
        raise ValueError(f"only PyTorch has {', '.join(sorted(stored))}")
    yield from (worst[tower] for tower in TOWERS)


@dataclass(frozen=True)
class Greedy:
    """tokens, ours: int32[B, T]; leads: float32[B, T'], distance of PyTorch's two best logits at every step
    taken."""

    tokens: np.ndarray
    ours: np.ndarray
    leads: np.ndarray

    @property
    def passed(self) -> bool:
        return bool(np.array_equal(self.tokens, self.ours))

    def report(self, largest_difference: float) -> str:
        rows, steps = self.tokens.shape
        same = int((self.tokens == self.ours).sum())
        lines = [
            f"Greedy tokens: {same} of {rows} x {steps} identical ({len(np.unique(self.tokens))} different "
            f"tokens, {len(np.unique(self.tokens, axis=0))} different answers). Smallest lead of a token "
            f"over the second best: {self.leads.min():.3g}, median {np.median(self.leads):.3g}; largest "
            f"difference of any logit: {largest_difference:.3g}."
        ]
        for row in range(rows):
            different = np.flatnonzero(self.tokens[row] != self.ours[row])
            if len(different):
                step = different[0]
                lead = self.leads[row, step]
                lines.append(f"Question {row} first differs at token {step}, where the lead is {lead:.3g}.")
        return "\n".join(lines)


def table(lines: list[Line]) -> str:
    """Markdown."""
    head = "| | max \\|difference\\| | relative to max \\|output\\| | tolerance | |\n|---|---|---|---|---|"
    rows = [
        f"| {line.name} | {line.difference:.2e} | {line.relative:.2e} | {line.tolerance:.0e} "
        f"| {'pass' if line.passed else '**FAIL**'} |"
        for line in lines
    ]
    return "\n".join([head, *rows])


def progress(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def release_memory() -> None:
    """Gives freed memory back to the system, which glibc otherwise keeps for itself."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except OSError:
        return


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
        store = Store(Path(scratch) / "torch")
        progress("PyTorch: forward pass")
        run_torch(theirs, batch, store)
        del theirs
        release_memory()
        progress("JAX: weights")
        ours = load(folder)
        progress("JAX: modules")
        modules = list(compare_modules(ours, batch, store))
        progress("JAX: forward pass")
        whole = list(compare_whole(ours, batch, store))
        release_memory()
        progress("JAX: greedy tokens")
        tokens = ours.generate(*batch.prompts, *batch.pictures, max_new_tokens=NEW_TOKENS)
        greedy = Greedy(np.array(store.get("greedy")), tokens, np.array(store.get("leads")))
        progress("JAX: gradients")
        gradients = list(compare_gradients(ours, batch, store))
    lines = modules + whole + gradients
    logits = next(line for line in whole if line.name == "logits")
    passed = greedy.passed and all(line.passed for line in lines)
    regions = sorted(mask.shape[-1] for mask in batch.masks)
    lengths = batch.attention_mask.sum(1)
    report = "\n\n".join(
        [
            f"{parameters:,} parameters, {weights}; float32, CPU; {len(batch.ids)} real questions of "
            f"{lengths.min()} to {lengths.max()} tokens with {regions[0]} to {regions[-1]} regions. "
            f"Gradients: of {GRADIENT_ROWS} of them.",
            "Each module by itself, given PyTorch's inputs:\n\n" + table(modules),
            "The whole model:\n\n" + table(whole + gradients),
            greedy.report(logits.difference),
            "Every tolerance is met." if passed else "**A tolerance is missed.**",
        ]
    )
    return report, passed


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the random model (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="checkpoint in the PyTorch release's layout, in place of --size")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default %(default)s)")
    parser.add_argument("--out", type=Path, help="Markdown file to write the report to, as well")
    options = parser.parse_args(arguments)
    jax.config.update("jax_default_matmul_precision", "highest")
    what = options.folder or f"a random model of size {options.size}"
    progress(f"comparing {what} in PyTorch and JAX, {QUESTIONS} questions")
    try:
        report, passed = measure(options.size, options.folder, options.seed)
        print(report)
        if options.out is not None:
            aside = options.out.with_name(f".{options.out.name}.partial-{os.getpid()}")
            aside.write_text(report + "\n", encoding="utf-8")
            aside.replace(options.out)
    except (CheckpointError, ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
