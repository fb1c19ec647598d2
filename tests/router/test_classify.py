from __future__ import annotations

import json

import numpy as np
import pytest
import transformers

from launch.train_router import BEGIN, DEMO_TOKENIZER, END, PAD
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.router.classify import (
    RouterTokenizer,
    classifier_tokenizer_files,
    pad_rows,
    read_router_texts,
    read_tokenizer_files,
)


def record(number: int = 0, **changes) -> dict:
    turns = [{"from": "human", "value": "<image>\nHow far is <mask>?"}, {"from": "gpt", "value": " 3 m. "}]
    return {"id": f"r{number}", "category": "distance", "conversations": turns} | changes


def written(tmp_path, records: list):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(records))
    return path


def test_questions_and_answers_are_read_without_pictures(tmp_path):
    path = written(tmp_path, [record()])
    (question,), (answer,) = read_router_texts(path, "question"), read_router_texts(path, "answer")
    assert (question.id, question.text, question.category) == ("r0", "How far is <mask>?", "distance")
    assert answer.text == "3 m."


def test_questions_without_category_are_read_where_none_is_needed(tmp_path):
    path = written(tmp_path, [record(conversations=record()["conversations"][:1], category=None)])
    assert read_router_texts(path, "question", need_category=False)[0].category == ""
    with pytest.raises(DataError, match="record 'r0': has category ''"):
        read_router_texts(path, "question")
    with pytest.raises(DataError, match="has no answer"):
        read_router_texts(path, "answer", need_category=False)


@pytest.mark.parametrize(
    "records, message",
    [
        ([], "holds no records"),
        ([record(), record(1, category="weight")], "record 'r1': has category 'weight'"),
        ([record(category=3)], "has category 3"),
        ([3], "record number 0: is a number"),
        ([record(conversations=None)], "record 'r0': the conversation's speakers"),
        ([record(id=None)], "record number 0: has no id"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(tmp_path, records, message):
    with pytest.raises(DataError, match=message) as error:
        read_router_texts(written(tmp_path, records), "question", need_category=False)
    assert "train.json" in str(error.value)


def test_texts_get_the_ids_that_transformers_gives_them_cut_ones_too(tmp_path):
    files = classifier_tokenizer_files(DEMO_TOKENIZER, BEGIN, END, PAD)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    texts = ["How far is <mask> from <mask>?", "", "Which? " * 40, "a"]
    tokenizer = RouterTokenizer(read_tokenizer_files(tmp_path)["tokenizer.json"], 16)
    rows, truncated = tokenizer.encode(texts)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert rows == theirs(texts, truncation=True, max_length=16)["input_ids"]
    assert truncated == sum(len(ids) > 16 for ids in theirs(texts)["input_ids"]) > 0
    assert (rows[1], len(rows[2])) == ([1, 2], 16)
    assert theirs.pad_token_id == tokenizer.token_id(PAD) == 0


def test_tokenizers_that_do_not_fit_are_refused(tmp_path):
    files = classifier_tokenizer_files(DEMO_TOKENIZER, BEGIN, END, PAD)
    with pytest.raises(DataError, match="640 tokens, the model's vocabulary only 600"):
        RouterTokenizer(files["tokenizer.json"], 16, vocab_size=600)
    with pytest.raises(DataError, match="no room"):
        RouterTokenizer(files["tokenizer.json"], 2)
    with pytest.raises(DataError, match="holds no tokenizer"):
        RouterTokenizer("{}", 16)
    with pytest.raises(DataError, match="lacks one of"):
        classifier_tokenizer_files(DEMO_TOKENIZER, "<s>", END, PAD)
    with pytest.raises(DataError, match="holds no tokenizer.json"):
        read_tokenizer_files(tmp_path)


def test_lengths_are_powers_of_two_up_to_the_longest():
    lengths = [pad_rows([[5] * n], 100, 1)[0].shape[1] for n in (1, 32, 33, 64, 65, 100)]
    assert lengths == [32, 32, 64, 64, 100, 100]


def test_rows_are_padded_on_the_right():
    tokens, mask = pad_rows([[5, 6, 7], [], [8]], 4, 1)
    assert np.array_equal(tokens, [[5, 6, 7, 1], [1, 1, 1, 1], [8, 1, 1, 1]])
    assert np.array_equal(mask, [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
