"""Questions answered per second: the PyTorch release's way, and the engine."""

import copy
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from benchmarks.shared import SIZES, TOKENIZER, make_questions, markdown, progress, show
from convert.torch_model import TorchModel, left_padded, random_torch
from eval.command_line import command_line
from smolrgpt_jax import load
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.images import load_depth, load_rgb
from smolrgpt_jax.data.masks import decode
from smolrgpt_jax.data.prompts import plan_prompts, prompt_shape
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.generation.engine import AnswerOptions, answer_prompts
from smolrgpt_jax.model import Model

STEPS = 120
NO_TOKEN = -1  # no token ends an answer, its length does
SHARED = 8  # questions per picture of the first case; the second has one

Answers = dict[str, list[int]]


@dataclasses.dataclass
class Case:
    """Questions about pictures, and how the two sides answered them."""

    name: str  # for the table
    pictures: list[Picture]
    lengths: dict[str, int]  # tokens of each answer, by question id
    torch: tuple[float, float] = (0.0, 0.0)  # seconds and processor seconds that it took
    engine: tuple[float, float] = (0.0, 0.0)
    same: int = 0  # how many answers were the same

    @property
    def questions(self) -> int:
        return len(self.lengths)


def make_cases(folder: Path, questions: int, seed: int = 0) -> list[Case]:
    """Procedural questions, eight per picture and one per picture."""
    pictures = make_questions(folder, questions + 2, mix="published", questions_per_picture=12.0)
    rich = [picture for picture in pictures if len(picture.questions) >= SHARED]
    if len(rich) * SHARED < questions or len(pictures) < questions or questions % SHARED:
        raise RunError(f"cannot make {questions} questions, {SHARED} per picture")
    rng, cases = np.random.default_rng(seed), []
    for name, some, count in (
        (f"{SHARED} questions per picture", rich[: questions // SHARED], SHARED),
        ("1 question per picture", pictures[:questions], 1),
    ):
        asked = [dataclasses.replace(picture, questions=picture.questions[:count]) for picture in some]
        lengths = np.clip(np.rint(rng.normal(45, 15, questions)), 10, STEPS).astype(int).tolist()
        ids = [question.id for picture in asked for question in picture.questions]
        cases.append(Case(name, asked, dict(zip(ids, lengths, strict=True))))
    return cases


def answer_with_torch(
    model: TorchModel, case: Case, tokenizer: ChatTokenizer, batch_size: int, max_length: int
) -> Answers:
    """Batch after batch, every row with its own picture, all steps."""
    config = model.config
    size, vocab = config.vision.image_size, config.decoder.vocab_size
    features = {tokenizer.image_id: vocab - 3, tokenizer.mask_rgb_id: vocab - 2, tokenizer.mask_depth_id: vocab - 1}
    prefix = tokenizer.prefix(config.image_tokens)
    asked = [(picture, question) for picture in case.pictures for question in picture.questions]
    answers: Answers = {}
    for begin in range(0, len(asked), batch_size):
        pictures, questions = zip(*asked[begin : begin + batch_size])
        prompts = [np.concatenate([prefix, tokenizer.question(question.prompt)[0]]) for question in questions]
        prompts = [np.array([features.get(token, token) for token in prompt.tolist()]) for prompt in prompts]
        ids, mask = left_padded(prompts, tokenizer.pad_id, max_length)
        images = np.stack([load_rgb(picture.image, size) for picture in pictures])
        depths = np.stack([load_depth(picture.depth, size) for picture in pictures])
        masks = [np.stack([decode(region) for region in question.regions], axis=-1) for question in questions]
        written = model.generate(ids, mask, images, depths, masks, STEPS, NO_TOKEN)
        answers |= {q.id: row[: case.lengths[q.id]].tolist() for q, row in zip(questions, written)}
    return answers


def answer_with_engine(model: Model, case: Case, tokenizer: ChatTokenizer, batch_size: int) -> Answers:
    endless = copy.copy(tokenizer)
    endless.eos_id = NO_TOKEN
    prompts = plan_prompts(case.pictures, endless, prompt_shape(model.config))
    options = AnswerOptions(batch_size, STEPS)
    answered = answer_prompts(model, prompts, options, case.lengths)
    return {question: ids.tolist() for finished in answered for question, ids in finished.items()}


def timed(answer: Callable[[], Answers]) -> tuple[Answers, tuple[float, float]]:
    """The answers, and the seconds and processor seconds they took."""
    started, used = time.perf_counter(), time.process_time()
    answers = answer()
    return answers, (time.perf_counter() - started, time.process_time() - used)


def measure(
    theirs: TorchModel, ours: Model, tokenizer: ChatTokenizer, cases: Sequence[Case], batch_size: int, max_length: int
) -> None:
    """Every case by PyTorch, then by the engine, which has answered it once before to be compiled."""
    for case in cases:
        progress(f"{case.name}: PyTorch")
        expected, case.torch = timed(lambda: answer_with_torch(theirs, case, tokenizer, batch_size, max_length))
        progress(f"{case.name}: PyTorch took {case.torch[0]:.1f} s; the engine")
        answer_with_engine(ours, case, tokenizer, batch_size)
        found, case.engine = timed(lambda: answer_with_engine(ours, case, tokenizer, batch_size))
        progress(f"{case.name}: the engine took {case.engine[0]:.1f} s")
        case.same = sum(found[question] == ids for question, ids in expected.items())


def table(cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        count, (theirs, theirs_cpu), (ours, ours_cpu) = case.questions, case.torch, case.engine
        rows.append(
            f"{case.name} | {count} | {count / theirs:.3g} | {count / ours:.3g} | {theirs / ours:.2f} x "
            f"| {theirs_cpu / ours_cpu:.2f} x | {case.same} of {count}"
        )
    head = "| questions | PyTorch, questions/s | engine, questions/s | speed-up | in processor time | identical answers"
    return markdown(head, rows)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 1 if an answer differs."""
    a = command_line("benchmarks.generate", __doc__, size=SIZES).parse_args(arguments)
    print(f"answering 2 x {a.questions} questions twice with a random model of size {a.size}", flush=True)
    jax.config.update("jax_default_matmul_precision", "highest")
    tokenizer = ChatTokenizer.load(TOKENIZER)
    with tempfile.TemporaryDirectory(prefix="generate-") as folder:
        theirs = random_torch(SIZES[a.size], 0)
        theirs.save(Path(folder) / "checkpoint")
        for part in (theirs.vision, theirs.decoder):
            part.set_attn_implementation("sdpa")
        ours = load(Path(folder) / "checkpoint")
        cases = make_cases(Path(folder) / "data", a.questions)
        measure(theirs, ours, tokenizer, cases, a.batch_size, a.max_length)
    show(table(cases), a.out)
    prompts = [plan_prompts(case.pictures, tokenizer, prompt_shape(ours.config)) for case in cases]
    tokens = [p.prefix + length for p in prompts for row in p.rows for length in p.lengths(row)]
    answers = [length for case in cases for length in case.lengths.values()]
    print(f"prompts of {np.mean(tokens):.0f} tokens on average, answers of {np.mean(answers):.0f}")
    if any(case.same < case.questions for case in cases):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
