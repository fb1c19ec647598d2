"""An interrupted evaluation goes on from its journal to the same answers; a journal of another run is refused."""

from __future__ import annotations

import dataclasses
import json

import jax
import pytest

from eval.answering.journal import open_journal
from smolrgpt_jax import distributed, sharding
from smolrgpt_jax.checkpoint.fingerprint import params_fingerprint
from smolrgpt_jax.config import Compute
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.generation import answers
from smolrgpt_jax.generation.engine import AnswerOptions
from smolrgpt_jax.generation.sampling import Sampling
from tests.generation.conftest import small_model, small_warehouse

OPTIONS = AnswerOptions(8, 12, sampling=Sampling(temperature=1.0), progress=False)


def answer(model, pictures, journal=None, options=OPTIONS):
    kept = None if journal is None else open_journal(journal, model, pictures, options)
    return answers.generate_answers(model, pictures, options, kept)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return read_warehouse(small_warehouse(tmp_path_factory.mktemp("journal") / "data"), "train")


class Interrupted(Exception):
    pass


@pytest.fixture
def watched(monkeypatch):
    """Counts the answers that are decoded, and interrupts after so many batches of them."""
    decode, record = answers.answer_prompts, {"decoded": 0, "batches": None}

    def watch(*arguments, **options):
        for number, finished in enumerate(decode(*arguments, **options)):
            if number == record["batches"]:
                raise Interrupted
            record["decoded"] += len(finished)
            yield finished

    monkeypatch.setattr(answers, "answer_prompts", watch)
    return record


def interrupt(watched, model, pictures, journal, options=OPTIONS):
    watched["batches"] = 3
    with pytest.raises(Interrupted):
        answer(model, pictures, journal, options)
    watched["batches"] = None
    return watched["decoded"]


@pytest.mark.parametrize("torn", [b"", b'{"half a li', b'{"000"'], ids=["whole", "half a line", "shorter"])
def test_an_interrupted_run_goes_on(watched, model, pictures, tmp_path, torn):
    journal = tmp_path / "out" / "journal"
    done = interrupt(watched, model, pictures, journal)
    assert 0 < done < sum(len(picture.questions) for picture in pictures)
    with open(journal, "ab") as file:
        file.write(torn)
    found = answer(model, pictures, journal)
    assert watched["decoded"] == len(found), "a question was answered twice or not at all"
    expected = answer(model, pictures)
    assert found == expected and list(found) == list(expected)
    header, *lines = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = {name: said for line in lines for name, said in line.items()}
    assert {n: said if isinstance(said, str) else said["cut_off"] for n, said in kept.items()} == {
        name: given.text for name, given in expected.items()
    }
    watched["decoded"] = 0
    assert answer(model, pictures, journal) == expected
    assert watched["decoded"] == 0


def test_answers_that_were_cut_off_are_known_after_an_interruption(watched, model, pictures, tmp_path):
    options = dataclasses.replace(OPTIONS, max_new_tokens=3)
    interrupt(watched, model, pictures, tmp_path / "journal", options)
    found = answer(model, pictures, tmp_path / "journal", options)
    assert found == answer(model, pictures, options=options)
    assert 0 < sum(given.cut_off for given in found.values()) < len(found)


def test_a_journal_with_half_a_first_line_is_begun_again(watched, model, pictures, tmp_path):
    journal = tmp_path / "journal"
    journal.write_bytes(b'{"parameters": "12')
    found = answer(model, pictures, journal)
    assert watched["decoded"] == len(found) > 0
    assert answer(model, pictures, journal) == found
    assert watched["decoded"] == len(found)


def test_a_journal_of_another_run_is_refused(watched, model, pictures, tmp_path):
    journal = tmp_path / "journal"
    interrupt(watched, model, pictures, journal)
    name = "decoder/norm/scale"
    changed = model.params | {name: model.params[name].at[0].multiply(1.0001)}
    # Another picture behind the same questions.
    repainted = [dataclasses.replace(pictures[0], image=pictures[1].image), *pictures[1:]]
    assert pictures[0].image.stat().st_size != pictures[1].image.stat().st_size
    cases = [
        ("data", model, repainted, {}),
        ("decoding", model, pictures, {"seed": 1}),
        ("decoding", model, pictures, {"max_new_tokens": 13}),
        ("parameters", dataclasses.replace(model, params=changed), pictures, {}),
        ("compute", dataclasses.replace(model, compute=Compute(dtype="bfloat16")), pictures, {}),
        ("data", model, pictures[1:], {}),
    ]
    before = journal.read_bytes()
    for what, other, asked, options in cases:
        with pytest.raises(ValueError, match=f"answers of another run .other {what}.") as caught:
            answer(other, asked, journal, dataclasses.replace(OPTIONS, **options))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="other decoding"):
        answer(model, pictures, journal, dataclasses.replace(OPTIONS, closing="after_text"))
    assert journal.read_bytes() == before


def test_a_folder_where_nothing_can_be_written_is_named_before_anything_is_answered(model, pictures, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written in .*file"):
        open_journal(tmp_path / "file" / ".out.journal", model, pictures, OPTIONS)


@pytest.mark.parametrize("text", ["[1]\n", "not JSON\n", '{"a": 1}\n'])
def test_another_file_is_no_journal(model, pictures, tmp_path, text):
    journal = tmp_path / "journal"
    journal.write_text(text)
    with pytest.raises(ValueError, match="is no journal of answers"):
        answer(model, pictures, journal)
    assert journal.read_text() == text


def test_the_fingerprint_is_of_the_bits_and_not_of_their_place(model):
    mesh = sharding.make_mesh({"data": 2, "fsdp": 4})
    spread = jax.device_put(model.params, sharding.param_shardings(model.params, mesh))
    first = params_fingerprint(model.params)
    assert params_fingerprint(spread) == first
    name = "decoder/head"
    swapped = model.params[name][::-1]
    assert params_fingerprint(model.params | {name: swapped}) != first


def test_processes_that_would_answer_something_else_are_refused(model, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "gather", lambda own: [own, own, {**own, "data": "other"}])
    monkeypatch.setattr(distributed.time, "sleep", lambda seconds: None)
    with pytest.raises(RunError, match="of 3 processes, 2 .from 0. would go on with data 'other' instead of"):
        answer(model, pictures, tmp_path / "journal")
