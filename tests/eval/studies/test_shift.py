"""The layout shift: its warehouses are those of its version, and every variant is answered."""

from __future__ import annotations

import hashlib
import json

import pytest

from configs import demo, studies
from eval.studies import scoring, shift
from smolrgpt_jax.data.warehouse_sim.config import WarehouseConfig
from smolrgpt_jax.data.warehouse_sim.write import make_warehouse

# SHA-256 of the first two scenes' questions and answers.
RECORDS = {
    "as in training": "32a2174e9013f578182910929aaa619734e6e14c3fcaa782b5a60174c2e7a32a",
    "cameras of all heights": "7b255e8745a75959154f42fb3be940457da024828a37522c0c5be719a12fd7e3",
    "other looks": "926992cb10eb28b933c1f59d3ae2ccf6f8ebb753997c2d55726fe78d62157439",
    "fuller": "54c96ef67ce5e21780defcb1e3a45d7574d97bca3c0d1561cbfcc5b8e98691fe",
    "all of these": "1e67ce2387b7908937bf4a05e7f4212f79dcce118eb8a0fa66732421277b92e5",
}


def digest(file) -> str:
    said = [
        (record["category"], record["conversations"][0]["value"], record["normalized_answer"])
        for record in json.loads(file.read_text())
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@pytest.mark.parametrize("variant", studies.SHIFT)
def test_the_warehouses_of_version_1_stay_as_they_are(variant, tmp_path):
    assert studies.SHIFT_VERSION == 1
    make_warehouse(
        tmp_path / "data", WarehouseConfig(**studies.shifted_warehouse(variant, scenes=2)), workers=1
    )
    assert digest(tmp_path / "data" / "val.json") == RECORDS[variant]


def test_every_variant_is_answered_and_scored(tmp_path, monkeypatch, loaded_model):
    monkeypatch.setattr(
        studies, "SHIFT", {name: studies.SHIFT[name] for name in ("as in training", "fuller")}
    )
    asked = []

    def answer_all(model, pictures, *rest):
        asked.append(max(len(q.regions) for p in pictures for q in p.questions))
        return ["It is to the left." for p in pictures for _ in p.questions]

    monkeypatch.setattr(scoring, "answer_questions", answer_all)
    found = shift.run_study(
        loaded_model, tmp_path / "out", checkpoint=tmp_path, batch_size=4, max_new_tokens=4, scenes=6
    )
    assert list(found) == ["as in training", "fuller"] and asked[1] > asked[0]
    written = json.loads((tmp_path / "out" / "study.json").read_text())
    assert written["version"] == 1 and set(written["variants"]) == set(found)
    for name in ("as_in_training", "fuller"):
        assert (tmp_path / "out" / name / "report.html").is_file()


def test_no_training_of_the_demo_sees_the_test_scenes():
    assert studies.SHIFT_SEED >= 900_000
    assert studies.shifted_warehouse("as in training")["camera_variety"] == demo.WAREHOUSE["camera_variety"]
