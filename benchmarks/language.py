"""A pretrained language model's numbers against transformers', and what fewer bits cost it, on real questions and answers."""

import dataclasses
import math
import re
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.comparison import DATA_FILES, NEW_TOKENS, TOLERANCE, Line, describe_greedy, table
from benchmarks.shared import markdown, progress
from convert.folders import BACKBONES, EXTRA_TOKENS, build
from convert.gguf_llama import as_folder
from convert.torch_model import left_padded
from smolrgpt_jax import load
from smolrgpt_jax.config import VisionConfig
from smolrgpt_jax.data.chat import END, IGNORE, START, ChatTokenizer
from smolrgpt_jax.data.records import MASK
from smolrgpt_jax.export.onnx_folder import QUANTS
from smolrgpt_jax.export.onnx_graph import Quant
from smolrgpt_jax.files import read_json
from smolrgpt_jax.generation.decode import TABLES
from smolrgpt_jax.model import Model
from smolrgpt_jax.models.smolrgpt import loss_sums

PROMPTS = 50
ROWS = 8  # conversations of a forward pass
MULTIPLE = 64  # of tokens that a pass is padded to, so that few programs are compiled
# Nothing looks through it: the smallest one that can be joined with a language model.
VISION = VisionConfig(width=32, mlp_width=64, heads=2, layers=1, patch_size=8, image_size=16)


def in_words(question: str) -> str:
    """A question about marked regions for a model that sees none: "[Region 0]", as the answers name them."""
    number = count()
    return re.sub(MASK, lambda _: f"[Region {next(number)}]", question.replace("<image>", "")).strip()


def real_questions() -> list[str]:
    """654 questions of the warehouse benchmark."""
    return [in_words(q["question"]) for q in read_json(DATA_FILES / "warehouse_answers" / "questions.json", list)]


def real_conversations() -> list[tuple[str, str]]:
    """The questions that are at hand with their answers: of the warehouse benchmark, then of SpatialRGPT-Bench."""
    records = read_json(DATA_FILES / "real_warehouse" / "records_with_masks.json", list)
    warehouse = [[turn["value"] for turn in record["conversations"]] for record in records]
    answered = read_json(DATA_FILES / "warehouse_answers" / "answers.json", list)
    warehouse += [[record["question"], record["freeform_answer"]] for record in answered]
    bench = read_json(DATA_FILES / "spatialrgpt_bench" / "qa_pairs.json", list)
    return [(in_words(q), a) for q, a in [*warehouse, *([pair["question"], pair["gt"]] for pair in bench)]]


def written_out(question: str, answer: str | None = None) -> str:
    """A conversation, or a generation prompt, as one text."""
    said = "" if answer is None else f"{answer}{END}\n"
    return f"{START}user\n{question}{END}\n{START}assistant\n{said}"


def ids_of(tokenizer: ChatTokenizer, question: str, answer: str | None = None) -> tuple[np.ndarray, int]:
    """The ids of a conversation without a picture, int32[N], and how many come before the answer."""
    header = tokenizer.prefix(0)
    rest, before = tokenizer.question(question, answer)
    return np.concatenate([header, rest]), len(header) + before


def with_a_picture_tower(folder: str, scratch: Path) -> Path:
    """The language model joined with a tiny vision encoder, by `convert backbones`: a checkpoint of ours."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    sizes = {name: getattr(VISION, ours) for name, (ours, _) in BACKBONES["siglip"]["fields"].items()}
    how = {"hidden_act": "gelu_pytorch_tanh", "vision_use_head": False}
    SiglipVisionModel(SiglipVisionConfig(**sizes, **how)).save_pretrained(scratch / "vision")
    build(str(scratch / "vision"), folder, scratch / "joined")
    return scratch / "joined"


def no_pictures(rows: int) -> np.ndarray:
    """Pictures that no token stands for, float32[rows, H, W, 3]."""
    return np.zeros((rows, VISION.image_size, VISION.image_size, 3), np.float32)


def quantised(model: Model, quant: Quant) -> Model:
    """The model with the decoder's matrices as the ONNX export would store them: those of products, and the table of tokens."""
    params = dict(model.params)
    for name, kernel in model.params.items():
        if name.startswith("decoder/blocks/") and name.endswith("/kernel"):
            inputs = math.prod(kernel.shape[1:-1]) if "out_proj" in name else kernel.shape[1]
            layers = np.asarray(kernel).reshape(len(kernel), inputs, -1)
            params[name] = jnp.stack([stored(layer.T, quant).T for layer in layers]).reshape(kernel.shape)
        elif name in TABLES:
            params[name] = jnp.asarray(stored(np.asarray(kernel), QUANTS["int8"]))  # whatever the others have
    return dataclasses.replace(model, params=params)


def stored(rows: np.ndarray, quant: Quant) -> np.ndarray:
    """float32[N, K] -> the numbers that their codes stand for."""
    codes, scales, *zeros = quant.codes(rows)
    if quant.bits == 4:
        codes, zeros = _from_halves(codes), _from_halves(*zeros)[:, : scales.shape[1], None]
    else:
        zeros = np.float32(128)
    numbers = (codes.reshape(*scales.shape, quant.block) - zeros) * scales[..., None]
    return numbers.reshape(len(rows), -1)[:, : rows.shape[1]]


def _from_halves(codes: np.ndarray) -> np.ndarray:
    """uint8[N, M], two codes a byte -> float32[N, 2 M]."""
    return np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1).astype(np.float32)


class Batch(NamedTuple):
    """Conversations padded on the left: ids, mask and targets, int32[B, S] each, -100 where there is no loss."""

    ids: np.ndarray
    mask: np.ndarray
    targets: np.ndarray


def in_batches(tokenizer: ChatTokenizer, conversations: Sequence[tuple[str, str]]) -> list[Batch]:
    rows = sorted((ids_of(tokenizer, *conversation) for conversation in conversations), key=lambda row: len(row[0]))
    batches = []
    for some in (rows[begin : begin + ROWS] for begin in range(0, len(rows), ROWS)):
        length = -(-len(some[-1][0]) // MULTIPLE) * MULTIPLE
        ids, mask = left_padded([row for row, _ in some], tokenizer.pad_id, length)
        targets = np.full_like(ids, IGNORE)
        for target, (row, start) in zip(targets, some):
            target[length - len(row) + start - 1 : -1] = row[start:]
        batches.append(Batch(ids, mask, targets))
    return batches


def torch_logits(model: Any, batch: Batch) -> np.ndarray:
    """Those of transformers' model, float32[B, S, V]."""
    import torch

    positions = np.maximum(batch.mask.cumsum(1) - 1, 0)
    given = {"input_ids": batch.ids, "attention_mask": batch.mask, "position_ids": positions}
    with torch.no_grad():
        return model(**{name: torch.tensor(v, dtype=torch.int64) for name, v in given.items()}).logits.numpy()


def our_logits(model: Model, batch: Batch) -> np.ndarray:
    """Those of our model for the tokens of the language model, without the three extra ones, float32[B, S, V]."""
    return model.forward(batch.ids, batch.mask, no_pictures(len(batch.ids)))["logits"][..., :-EXTRA_TOKENS]


def loss(logits: np.ndarray, batch: Batch) -> float:
    """Summed over the tokens of the answers, their ends included."""
    return float(np.asarray(_loss_sums(logits, batch.targets)[0]).sum(dtype=np.float64))


_loss_sums = jax.jit(loss_sums)


def greedy(theirs: Any, ours: Model, prompts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Continuations int32[B, NEW_TOKENS] of transformers and of ours, eos after the first, and the leads of the former's tokens."""
    import torch
    from transformers import GenerationConfig

    ids, mask = left_padded(prompts, ours.eos_id)
    ends = {"eos_token_id": ours.eos_id, "pad_token_id": ours.eos_id}
    how = GenerationConfig(**ends, max_new_tokens=NEW_TOKENS, return_dict_in_generate=True, output_logits=True)
    given = {"inputs": torch.tensor(ids, dtype=torch.int64), "attention_mask": torch.tensor(mask, dtype=torch.int64)}
    with torch.no_grad():
        made = theirs.generate(**given, generation_config=how)
    new = made.sequences[:, ids.shape[1] :].numpy()
    expected = np.full((len(ids), NEW_TOKENS), ours.eos_id, np.int32)
    expected[:, : new.shape[1]] = new
    best = torch.stack([logits.topk(2).values for logits in made.logits], dim=1).numpy()
    found = ours.generate(ids, mask, no_pictures(len(ids)), max_new_tokens=NEW_TOKENS)
    return expected, found, best[..., 0] - best[..., 1]


def compare_logits(theirs: Any, ours: Model, batches: Sequence[Batch]) -> tuple[Line, float, dict[str, float]]:
    """The largest difference of a logit, the largest logit, and each side's sum of losses."""
    difference, largest = 0.0, 0.0
    sums = {"transformers, float32": 0.0, "float32": 0.0}
    for batch in batches:
        both = torch_logits(theirs, batch), our_logits(ours, batch)
        for name, logits in zip(sums, both):
            sums[name] += loss(logits, batch)
        want, has = (logits[batch.mask != 0] for logits in both)
        difference, largest = max(difference, float(np.abs(want - has).max())), max(largest, float(np.abs(want).max()))
    return Line("logits", difference, difference / largest, TOLERANCE), largest, sums


def measure(language: str) -> tuple[str, bool]:
    """Runs both sides; returns the report and whether all tokens are equal and every logit is within the tolerance."""
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    with as_folder(language) as folder, tempfile.TemporaryDirectory(prefix="joined-") as scratch:
        progress("reading both models")
        theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ours = load(with_a_picture_tower(folder, Path(scratch)))
        reference, tokenizer = PreTrainedTokenizerFast.from_pretrained(folder), ChatTokenizer.load(folder)
    questions, conversations = real_questions(), real_conversations()
    texts = [*((question, None) for question in questions), *conversations]
    same = [reference(written_out(*text)).input_ids == ids_of(tokenizer, *text)[0].tolist() for text in texts]
    progress("greedy tokens")
    prompts = [ids_of(tokenizer, question)[0] for question in questions[:: len(questions) // PROMPTS][:PROMPTS]]
    expected, found, leads = greedy(theirs, ours, prompts)
    progress("logits of the answered questions")
    batches = in_batches(tokenizer, conversations)
    logits, largest, sums = compare_logits(theirs, ours, batches)
    for name, change in {
        "bfloat16": lambda: dataclasses.replace(ours, compute=ours.compute.replace(dtype="bfloat16")),
        "int8 weights": lambda: quantised(ours, QUANTS["int8"]),
        "int4 weights": lambda: quantised(ours, QUANTS["int4"]),
    }.items():
        progress(f"perplexity: {name}")
        model = change()
        sums[name] = sum(loss(our_logits(model, batch), batch) for batch in batches)
    passed = all(same) and np.array_equal(expected, found) and logits.passed
    answer_tokens = sum(int((batch.targets >= 0).sum()) for batch in batches)
    parts = [
        f"{theirs.num_parameters():,} parameters, {len(reference):,} tokens; float32, CPU.",
        f"Token ids of {len(same)} real questions and conversations: {sum(same)} equal.",
        describe_greedy(expected, found, leads, logits.difference),
        f"{len(conversations)} questions with their answers, the largest logit {largest:.4g}:",
        table([logits]),
        f"Perplexity of the {answer_tokens:,} tokens of those answers; int8 and int4 as `export --quant` stores them:",
        markdown("| perplexity", (f"{name} | {np.exp(total / answer_tokens):.4f}" for name, total in sums.items())),
        "Every tolerance is met." if passed else "**A tolerance is missed.**",
    ]
    return "\n\n".join(parts), passed
