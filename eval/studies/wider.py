"""Training on wider distributions, tested under the layout shift; the study is told in eval/options.toml, [study_wider]."""

from pathlib import Path
from typing import Any

from configs import studies as configs
from eval.studies import findings
from eval.studies.shift import ensure_shifted, folder_name
from eval.studies.trained import Changes, Task, Values
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.files import read_json, write_json
from smolrgpt_jax.model import Model


class Wider(Task):
    name = "wider"
    results = "shift"
    training: Changes = {}

    def test(self, model: Model, root: Path, out: Path, limits: findings.Limits, **details: Any) -> None:
        """Asks about each warehouse of the layout shift, which all seeds share; metrics.json, written last, has the S1 of each."""
        reached: dict[str, float] = {}
        for variant in configs.SHIFT:
            data = ensure_shifted(root.parent / "shift", variant)
            if not (out / data.name / "metrics.json").exists():
                about = {**details, "variant": f"{details['variant']}, asked about: {variant}", "data": data}
                findings.score(model, read_warehouse(data, "val"), out / data.name, limits, **about)
            reached[variant] = read_json(out / data.name / "metrics.json", dict)["S1"]
        write_json(out / "metrics.json", reached)

    def scores(self, out: Path) -> Values:
        return read_json(out / "metrics.json", dict)

    def of_run(self, out: Path) -> findings.Scores:
        return {variant: findings.of_one_run(out / folder_name(variant))["S1"] for variant in configs.SHIFT}

    def paired(self, first: Path, second: Path) -> findings.Scores:
        return {
            v: findings.paired_differences(first / folder_name(v), second / folder_name(v))["S1"] for v in configs.SHIFT
        }


TASK = Wider()
