from __future__ import annotations

import json

import pytest

from eval.answering.warehouse import evaluate
from eval.compare import compare_runs, main, read_run
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError


def record(name, answer, truth=3, category="count", image=None):
    return {
        "id": name,
        "image": image or f"{name}.png",
        "category": category,
        "normalized_answer": answer,
        "truth": truth,
    }


def write(path, records):
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path):
    """A and B on 12 counts and 4 sides: A alone is right on 1 and 0 of them, B alone on 6 and 2."""
    answers_a = [3, 3, 3, 9, 9, 9, 9, 9, 9, 9, None, 3]
    answers_b = [3, 3, 3, 3, 3, 3, 3, 3, 3, 9, 9, 9]
    paths = []
    for name, counts, sides in (("a", answers_a, "llrr"), ("b", answers_b, "llll")):
        records = [record(f"c{n}", answer) for n, answer in enumerate(counts)]
        records += [
            record(f"s{n}", {"l": "left", "r": "right"}[side], "left", "left_right") for n, side in enumerate(sides)
        ]
        paths.append(write(tmp_path / f"{name}.json", records))
    return paths


def test_a_comparison_counts_pairs(runs):
    rows = {row["name"]: row for row in compare_runs(read_run(runs[0]), read_run(runs[1]), ("A", "B"))}
    assert list(rows) == ["S1", "left_right", "count", "all questions"]
    count, everything, s1 = rows["count"], rows["all questions"], rows["S1"]
    assert (count["questions"], count["only_a"], count["only_b"]) == (12, 1, 6)
    assert count["a"] == pytest.approx(400 / 12) and count["b"] == pytest.approx(900 / 12)
    # Two-sided: at most 1 or at least 6 heads of 7 tosses.
    assert count["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert (everything["only_a"], everything["only_b"]) == (1, 8)
    assert everything["p"] == pytest.approx(2 * (1 + 9) / 2**9)
    assert s1["difference"] == pytest.approx((50 + 500 / 12) / 2) and "p" not in s1
    for row in rows.values():
        low, high = row["interval"]
        assert low <= row["difference"] <= high and low < high


def test_a_run_against_itself_differs_in_nothing(runs):
    run = read_run(runs[0])
    for row in compare_runs(run, run, ("A", "A")):
        assert row["difference"] == 0 and row["interval"] == [0, 0] and row.get("p", 1) == 1


def test_the_command_reads_run_folders_and_writes_the_table(warehouse, tmp_path, capsys):
    pictures = read_warehouse(warehouse, "val")

    def silent(asked):
        return ["" for picture in asked for _ in picture.questions]

    def truthful(asked):
        return [question.answer for picture in asked for question in picture.questions]

    evaluate(pictures, silent, tmp_path / "silent")
    evaluate(pictures, truthful, tmp_path / "truthful")
    main([str(tmp_path / "silent"), str(tmp_path / "truthful"), "--out", str(tmp_path / "new" / "table.md")])
    text = (tmp_path / "new" / "table.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert "| S1 | 28 | 0.00 | 100.00 | +100.00 | +100.00 to +100.00 |" in text
    assert "| mcq | 7 | 0.00 | 100.00 | +100.00 | +100.00 to +100.00 | 0 | 7 | 0.016 |" in text


def test_all_ids_that_only_one_run_has_are_listed(runs):
    first, second = read_run(runs[0]), read_run(runs[1])
    del first["c1"], first["c2"], second["s3"]
    with pytest.raises(DataError) as error:
        compare_runs(first, second, ("A", "B"))
    assert "only A has 1 of its 14 ids ('s3') and only B has 2 of its 15 ids ('c1', 'c2')" in str(error.value)


def test_very_many_ids_that_differ_are_listed_in_a_file(tmp_path):
    first = write(tmp_path / "a.json", [record(f"a{n}", 3) for n in range(120)])
    second = write(tmp_path / "b.json", [record("b", 3)])
    with pytest.raises(SystemExit) as stop:
        main([str(first), str(second), "--out", str(tmp_path / "table.md")])
    listing = tmp_path / "table_differing_ids.json"
    assert str(stop.value).endswith(f"has 1 of its 1 ids ('b'); all are listed in {listing}")
    assert json.loads(listing.read_text()) == {str(first): [f"a{n}" for n in range(120)], str(second): ["b"]}
    with pytest.raises(SystemExit, match="'a0', .*'a119'"):
        main([str(first), str(second)])


def test_an_id_that_means_another_question_is_refused(runs):
    first, second = read_run(runs[0]), read_run(runs[1])
    second["c4"] = {**second["c4"], "truth": 1}
    second["c5"] = {**second["c5"], "image": "other.png"}
    with pytest.raises(DataError, match="truth has id 'c4', 'c5'"):
        compare_runs(first, second, ("A", "B"))


@pytest.mark.parametrize(
    "records, message",
    [
        ([record("c0", 3)], "of its 16 ids ('c1'"),
        ([record("c0", 3), record("c0", 3)], "more than once: 'c0'"),
        ([record("c0", "many")], "'many'"),
        ([record("c0", 3, truth=None)], "no published answer"),
        ([record("c0", 3, truth=None, category="")], "no published answer"),
        ([record("c0", 3, category="colour")], "colour"),
        ([record("c0", [3])], "'c0'"),
        ([record("c0", 3, truth="many")], "'many'"),
        ([record("c0", 3, category=["count"])], "unknown category ['count']"),
        ([record(["c0"], 3, image="a.png")], "record 0 has the id ['c0']"),
        ([record(None, 3, image="a.png")], "record 0 has the id None"),
        ("", "is not valid JSON"),
        ("[{", "is not valid JSON"),
        ("7", "holds a number, expected a list of records"),
        ([{"id": "c0"}], "record 0 has no 'image'"),
        ([3], "record 0 is a number, expected a JSON object"),
        ([], "holds no question"),
        (None, "cannot be read"),
    ],
)
def test_bad_runs_end_the_command_with_one_sentence_and_no_output(tmp_path, runs, records, message):
    if isinstance(records, str):
        (tmp_path / "bad.json").write_text(records, encoding="utf-8")
    elif records is not None:
        write(tmp_path / "bad.json", records)
    with pytest.raises(SystemExit) as stop:
        main([str(runs[0]), str(tmp_path / "bad.json"), "--out", str(tmp_path / "table.md")])
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)
    assert not (tmp_path / "table.md").exists()
