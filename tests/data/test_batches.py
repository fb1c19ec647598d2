from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.batches import Order, PackedRows, data_facts, train_batches
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError
from tests.data.row_cases import assert_same, damage, row_of


@pytest.fixture
def pictures(filled):
    return read_warehouse(filled.root, "train")


@pytest.fixture
def one_each(shape):
    """A shape that gives every picture rows of its own."""
    return dataclasses.replace(shape, pictures=1)


@pytest.fixture
def rows(pictures, tokenizer, one_each):
    return PackedRows(pictures, tokenizer, one_each)


def texts(batch):
    """The rows of a batch, as something to compare: tokens and the sum of their picture."""
    return [(tokens.tobytes(), float(image.sum())) for tokens, image in zip(batch["tokens"], batch["images"])]


def test_a_row_holds_the_pixels_of_its_pictures(pictures, tokenizer, shape):
    rows = PackedRows(pictures, tokenizer, shape)
    for index, parts in enumerate(rows.plan.rows):
        row = row_of(rows, index)
        assert {key: (value.shape, value.dtype.name) for key, value in row.items()} == {
            **{
                key: ((128,), "int32")
                for key in ("tokens", "targets", "positions", "picture_ids", "question_ids", "feature_index")
            },
            "images": ((2, 16, 16, 3), "float32"),
            "depths": ((2, 16, 16, 3), "float32"),
            "region_masks": ((2, 6, 8, 8), "float32"),
        }
        for place in range(2):
            if place >= len(parts):
                assert not row["images"][place].any() and not row["region_masks"][place].any()
                continue
            picture = pictures[parts[place].picture]
            np.testing.assert_array_equal(row["images"][place], images.load_rgb(picture.image, 16))
            np.testing.assert_array_equal(row["depths"][place], images.load_depth(picture.depth, 16))
            # Every mask token of the text points at the resampled mask of its region.
            expected = [
                masks.resample(masks.decode(region), 8)
                for number in parts[place].questions
                for region in picture.questions[number].regions
            ]
            own = (row["tokens"] == tokenizer.mask_rgb_id) & (row["picture_ids"] == place + 1)
            slots = row["feature_index"][own] - 2 * 4 - place * 6
            np.testing.assert_array_equal(row["region_masks"][place][slots], np.stack(expected))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_get_disjoint_shares_of_the_same_global_batches(rows, processes):
    whole = list(train_batches([rows], Order(4, 3, num_epochs=2)))
    parts = [
        list(train_batches([rows], Order(4, 3, num_epochs=2), share=share))
        for share in np.split(np.arange(4), processes)
    ]
    assert len({len(part) for part in parts}) == 1 and len(parts[0]) == len(whole)
    for step, batch in enumerate(whole):
        for key, value in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[step][key] for part in parts]), value)


def test_a_share_may_be_any_rows_of_a_batch(rows):
    whole = next(iter(train_batches([rows], Order(4, 3))))
    part = next(iter(train_batches([rows], Order(4, 3), share=[0, 2])))
    assert_same(part, {key: value[[0, 2]] for key, value in whole.items()})


def test_every_row_comes_once_per_epoch_and_in_another_order(rows):
    everything = sorted(texts(rows.batch(range(len(rows)))))
    size = len(rows)
    epochs = [texts(batch) for batch in train_batches([rows], Order(size, 0, num_epochs=3))]
    assert len(epochs) == 3
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    again = next(iter(train_batches([rows], Order(size, 0))))
    assert texts(again) == epochs[0]
    assert texts(next(iter(train_batches([rows], Order(size, 1))))) != epochs[0]
    plain = next(iter(train_batches([rows], Order(size, 0, chosen=range(size)))))
    assert texts(plain) == texts(rows.batch(range(size)))


def test_the_last_batch_is_filled_up_with_rows_without_loss(rows):
    size = len(rows) - 1
    first, last = train_batches([rows], Order(size, 0, num_epochs=1))
    assert (first["picture_ids"].max(axis=1) > 0).all()
    assert (last["picture_ids"].max(axis=1) > 0).sum() == 1
    assert (last["targets"][1:] == -100).all() and not last["images"][1:].any()
    assert last["tokens"].shape == first["tokens"].shape


@pytest.mark.parametrize("processes", [1, 2])
def test_resumes_with_the_next_batch_also_on_other_processes(rows, processes):
    iterator = iter(train_batches([rows], Order(4, 5)))
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(3)]
    resumed = [iter(train_batches([rows], Order(4, 5), share=s)) for s in np.split(np.arange(4), processes)]
    for part in resumed:
        part.set_state(state)
    for batch in expected:
        shares = [next(part) for part in resumed]
        assert_same({key: np.concatenate([share[key] for share in shares]) for key in batch}, batch)


def test_the_iterator_is_saved_in_a_checkpoint(rows, tmp_path):
    import grain
    import orbax.checkpoint as ocp

    iterator = train_batches([rows], Order(2, 5))
    next(iterator)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
    expected = next(iterator)
    restored = train_batches([rows], Order(2, 5))
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.restore(1, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(restored)))
    assert_same(next(restored), expected)


def test_several_data_sets_are_joined_or_mixed(pictures, tokenizer, one_each):
    first = PackedRows(pictures[:3], tokenizer, one_each)
    second = PackedRows(pictures[3:], tokenizer, one_each)
    total = len(first) + len(second)
    joined = next(iter(train_batches([first, second], Order(total, 0))))
    assert sorted(texts(joined)) == sorted(
        texts(first.batch(range(len(first)))) + texts(second.batch(range(len(second))))
    )
    mixed = next(iter(train_batches([first, second], Order(40, 0, weights=(3, 1)))))
    known = set(texts(first.batch(range(len(first)))))
    assert sum(text in known for text in texts(mixed)) == 30


def test_facts_tell_any_other_data_apart(rows, pictures, tokenizer, one_each):
    """Counts say what changed; digests see what has the same counts."""
    facts = data_facts([rows], "training")
    assert facts == data_facts([PackedRows(pictures, tokenizer, one_each)], "training")
    assert facts["training questions"] == sum(len(picture.questions) for picture in pictures)
    fewer = data_facts([PackedRows(pictures[1:], tokenizer, one_each)], "training")
    assert fewer["training pictures"] == facts["training pictures"] - 1
    question = dataclasses.replace(pictures[0].questions[0], answer="0")
    other = dataclasses.replace(pictures[0], questions=(question, *pictures[0].questions[1:]))
    for changed in ([other, *pictures[1:]], pictures[::-1]):
        found = data_facts([PackedRows(changed, tokenizer, one_each)], "training")
        names = {name for name in facts if facts[name] != found[name]}
        assert "training tokens (digest)" in names and "training pictures" not in names


def test_facts_see_other_masks_and_pictures_behind_the_same_words(rows, pictures, tokenizer, one_each):
    def differing(changed):
        found = data_facts([PackedRows(changed, tokenizer, one_each)], "training")
        return [name for name in facts if facts[name] != found[name]]

    facts = data_facts([rows], "training")
    first, *others = pictures
    question = first.questions[0]
    region = masks.encode(1 - masks.decode(question.regions[0]))
    asked = dataclasses.replace(question, regions=(region, *question.regions[1:]))
    masked = dataclasses.replace(first, questions=(asked, *first.questions[1:]))
    assert differing([masked, *others]) == ["training pictures (digest)"]
    valued = dataclasses.replace(question, normalized_answer=77)
    revalued = dataclasses.replace(first, questions=(valued, *first.questions[1:]))
    assert differing([revalued, *others]) == ["training pictures (digest)"]
    with Image.open(first.image) as picture:
        picture.resize((picture.width // 2, picture.height // 2)).save(first.image)
    assert differing(pictures) == ["training pictures (digest)"]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: (rows[1], rows[0], *rows[2:]),
        lambda rows: (rows[0] + rows[1], *rows[2:]),
        lambda rows: (rows[0][::-1], *rows[1:]),
        lambda rows: ((dataclasses.replace(rows[0][0], questions=rows[0][0].questions[::-1]), *rows[0][1:]), *rows[1:]),
    ],
    ids=["two rows exchanged", "two rows in one", "two pictures exchanged", "two questions exchanged"],
)
def test_the_digest_of_rows_sees_every_other_plan(pictures, tokenizer, shape, change):
    rows = PackedRows(pictures, tokenizer, dataclasses.replace(shape, tokens=512))  # room for pictures to share rows
    facts, plan = data_facts([rows], "training"), rows.plan.rows
    assert len(plan[0]) == 2 and len(plan[0][0].questions) > 1
    rows.plan = dataclasses.replace(rows.plan, rows=change(plan))
    found = data_facts([rows], "training")
    assert {name for name in facts if facts[name] != found[name]} - {"training rows"} == {"training rows (digest)"}


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("tokens", lambda asked: {"answer": asked.answer.replace("2.5", "7.5")}),
        ("pictures", lambda asked: {"normalized_answer": 7.5}),
        ("pictures", lambda asked: {"category": "count"}),
        ("pictures", lambda asked: {"regions": asked.regions[::-1]}),
    ],
    ids=["a token", "a value", "a category", "two masks exchanged"],
)
def test_a_change_of_a_question_is_seen_by_the_digest_of_what_it_changes(
    rows, pictures, tokenizer, one_each, what, change
):
    facts, (first, asked) = data_facts([rows], "training"), pictures[1].questions
    assert len(asked.regions) == 2 and asked.answer == "It is 2.5 meters."
    pictures[1] = dataclasses.replace(pictures[1], questions=(first, dataclasses.replace(asked, **change(asked))))
    found = data_facts([PackedRows(pictures, tokenizer, one_each)], "training")
    assert [name for name in facts if facts[name] != found[name]] == [f"training {what} (digest)"]


def test_the_digest_of_tokens_sees_which_are_answers_and_where_questions_end(rows):
    facts, asked = data_facts([rows], "training"), rows._questions
    for array in (asked._counted, asked._ends, asked._first):
        before = array[1]
        array[1] = not before
        found = data_facts([rows], "training")
        array[1] = before
        assert [name for name in facts if facts[name] != found[name]] == ["training tokens (digest)"]


def test_equal_data_in_another_folder_has_the_same_facts(rows, filled, tokenizer, one_each, tmp_path_factory):
    moved = shutil.copytree(filled.root, tmp_path_factory.mktemp("moved") / "data")
    elsewhere = PackedRows(read_warehouse(moved, "train"), tokenizer, one_each)
    assert data_facts([elsewhere], "training") == data_facts([rows], "training")


def test_batches_have_weights_only_where_they_are_asked_for(rows, pictures, tokenizer, one_each):
    assert "weights" not in rows.batch([0, -1])
    batch = PackedRows(pictures, tokenizer, one_each, question_balance=1.0).batch([0, -1])
    questions = len(rows.plan.rows[0][0].questions)
    assert batch["weights"].sum() == pytest.approx(questions) and not batch["weights"][1].any()
    np.testing.assert_array_equal(batch["weights"][0] > 0, batch["targets"][0] >= 0)


def test_sizes_that_do_not_fit_are_an_error(rows, pictures, tokenizer, shape):
    other = PackedRows(pictures, tokenizer, shape)
    for arguments, message in (
        (dict(rows=[rows, other], order=Order(2, 0)), "one shape"),
        (dict(rows=[rows], order=Order(2, 0, weights=(1, 2))), "one weight"),
        (dict(rows=[PackedRows([], tokenizer, shape)], order=Order(2, 0)), "without rows"),
    ):
        with pytest.raises(ValueError, match=message):
            train_batches(**arguments)


def test_a_truncated_picture_stops_training_with_picture_and_record(rows, pictures):
    damage(pictures[2])
    with pytest.raises(DataError) as caught:
        for _ in train_batches([rows], Order(2, 0, num_epochs=1)):
            pass
    text = str(caught.value).splitlines()[0]
    assert "000002_depth.png is truncated" in text and "'2-0'" in text


def test_a_truncated_picture_is_left_out_and_reported(pictures, tokenizer, shape):
    shape = dataclasses.replace(shape, tokens=512)  # room for pictures to share rows
    whole = PackedRows(pictures, tokenizer, shape)
    index = next(
        index for index, row in enumerate(whole.plan.rows) if len(row) == 2 and 2 in (row[0].picture, row[1].picture)
    )
    place = [part.picture for part in whole.plan.rows[index]].index(2)
    expected = row_of(whole, index)
    damage(pictures[2])
    bad = BadRecords("report")
    row = row_of(PackedRows(pictures, tokenizer, shape, on_bad_record=bad), index)
    assert len(bad.reasons) == 1 and "'2-0'" in bad.reasons[0]
    lost = expected["picture_ids"] == place + 1
    for key, value in (
        ("targets", -100),
        ("positions", 0),
        ("picture_ids", 0),
        ("question_ids", 0),
        ("feature_index", -1),
    ):
        assert (row[key][lost] == value).all()
        np.testing.assert_array_equal(row[key][~lost], expected[key][~lost])
    for key in ("images", "depths", "region_masks"):
        assert not row[key][place].any()
        np.testing.assert_array_equal(row[key][1 - place], expected[key][1 - place])
