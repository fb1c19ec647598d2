"""The demo with a pretrained language model: the published stages with the decoder trained at last, or frozen; what either answers."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import demo, demo_language
from eval.scoring.blind import BlindBaseline, read_training_questions
from eval.studies import answered
from eval.studies.findings import Found, Limits, markdown, table
from launch.demo_stages import check_seed, train_stages
from smolrgpt_jax.files import read_json, results_folder, write_json
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

STUDY = "words"
ASKED, REWORDED = answered.STUDIES[STUDY]
RESULT = "language.json"
AT_ONCE = 32  # questions


def run(workdir: Path | None, seed: int, language: str) -> None:
    """Runs every step that is not done yet and prints the tables; raises ValueError or OSError with one sentence.

    workdir: None for that of configs/demo_language.py; language: Llama folder, hub id or GGUF file.
    """
    from convert.folders import build
    from convert.gguf_llama import as_folder

    check_seed(seed)
    workdir = workdir or Path(demo_language.ROOT)
    started = time.monotonic()
    data, start = workdir / "data", workdir / "start"
    stages = ", ".join(demo_language.STAGES)
    print(f"demo in {workdir}: a procedural warehouse, the stages {stages} on {language}, evaluation", flush=True)
    if not start.exists():
        with as_folder(language) as folder:
            build(demo.BACKBONE, folder, start, seed=seed)
    ensure_warehouse(data, WarehouseConfig(seed=seed, **demo_language.WAREHOUSE))
    train_stages(demo_language.STAGES, demo_language.get_config, workdir, seed)
    found: dict[str, Any] = {}
    for name, stage in {"before": "start", **demo_language.SCORED}.items():
        file = workdir / "eval" / stage / RESULT
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, score(workdir, workdir / stage, file.parent, seed, asked=stage != "start"))
        found[name] = read_json(file, dict)
    text = described(found)
    with results_folder(workdir) as aside:
        (aside / "language.md").write_text(f"{text}\n", encoding="utf-8")
    print(f"{text}\n{workdir / 'language.md'} ({(time.monotonic() - started) / 60:.1f} minutes)")


def score(workdir: Path, checkpoint: Path, out: Path, seed: int, *, asked: bool) -> dict[str, Any]:
    """{"perplexity"} of a checkpoint and, where it is asked the test questions too, {"scores", "differences"} of the study of words."""
    from eval.scoring.perplexity import perplexity, prose
    from smolrgpt_jax import load

    model, data = load(checkpoint), workdir / "data"
    assert model.tokenizer is not None
    found: dict[str, Any] = {"perplexity": perplexity(model, model.tokenizer, prose())}
    if asked:
        records, limits = read_json(data / "test_answers.json", list), Limits(AT_ONCE, None)
        blind = BlindBaseline(read_training_questions(data / "train.json"))
        study = (STUDY, model, records, data / "test", out / STUDY, limits, seed, checkpoint)
        found["scores"], found["differences"] = answered.run_study(*study, blind=blind)
        found["blind"] = read_json(out / STUDY / ASKED.replace(" ", "_") / "metrics.json", dict)["blind_S1"]
    return found


def described(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: scores with the words of training and with others, what the others cost, and perplexity before and after."""
    asked = {name: values for name, values in found.items() if "scores" in values}
    scores: Found = {f"{name}, {words}": s for name, v in asked.items() for words, s in v["scores"].items()}
    lost: Found = {name: values["differences"][REWORDED] for name, values in asked.items()}
    forgotten = {name: [f"{values['perplexity']:.2f}"] for name, values in found.items()}
    blind = next(iter(asked.values()))["blind"]
    return "\n\n".join(
        [
            table(scores, "decoder"),
            f"Without looking, S1 is {blind:.1f}.",
            table(lost, f"points more {REWORDED}", "+.1f"),
            markdown("plain language", ["perplexity"], forgotten),
        ]
    )
