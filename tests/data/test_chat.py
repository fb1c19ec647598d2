from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import transformers

from smolrgpt_jax.data.chat import FORMAT_FILE, ChatFormat, ChatTokenizer
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.data.trained_on import TrainedOn
from smolrgpt_jax.errors import DataError
from tests.data.collator import collate, spelled_out

TEXT = Path(__file__).parents[1] / "data_files" / "text"
GOLDEN = json.loads((TEXT / "collated.json").read_text())
BATCHES = {batch["max_length"]: batch for batch in GOLDEN["training_batches"]}
IMAGE, PAIR = "<|image|>", "<mask_rgb><mask_depth>"


@pytest.mark.parametrize("max_length", BATCHES)
@pytest.mark.parametrize("key", ["input_ids", "attention_mask", "labels"])
def test_collates_as_the_pytorch_release(tokenizer, max_length, key):
    batch = BATCHES[max_length]
    ours = collate(tokenizer, batch["conversations"], max_length)[key]
    assert ours.dtype == np.int32
    np.testing.assert_array_equal(ours, batch[key])


def test_ids_of_special_tokens(tokenizer):
    ids = GOLDEN["special_ids"]
    assert (tokenizer.image_id, tokenizer.mask_rgb_id, tokenizer.mask_depth_id) == (
        ids["image"],
        ids["mask_rgb"],
        ids["mask_depth"],
    )
    assert (tokenizer.eos_id, tokenizer.pad_id) == (ids["eos"], ids["pad"])
    assert tokenizer.vocab_size == GOLDEN["vocab_size_with_extra_tokens"]


def test_generation_prompt(tokenizer):
    user = BATCHES[512]["conversations"][0][0].removeprefix(IMAGE * 64).replace(PAIR, "<mask>")
    prompt = np.concatenate([tokenizer.prefix(64), tokenizer.question(user)[0]])
    np.testing.assert_array_equal(prompt, GOLDEN["generation_prompt_of_first_conversation"])


@pytest.mark.parametrize("index", range(10))
def test_prefix_and_question_are_the_whole_conversation(tokenizer, index):
    user, answer = BATCHES[512]["conversations"][index]
    prompt = user.removeprefix(IMAGE * 64).replace(PAIR, "<mask>")
    ids, before = tokenizer.question(prompt, answer)
    whole, labels = spelled_out(tokenizer, [user, answer])
    prefix = tokenizer.prefix(64)
    np.testing.assert_array_equal(np.concatenate([prefix, ids]), whole)
    np.testing.assert_array_equal(labels[prefix.size + before - 1 : -1], ids[before:])
    np.testing.assert_array_equal(tokenizer.question(prompt)[0], ids[:before])


@pytest.mark.parametrize("answer", ["\n\n\nanswer", "  spaced", "12 m", "\tx", ""])
def test_generation_prompt_is_a_prefix_whatever_the_answer_starts_with(tokenizer, answer):
    ids, before = tokenizer.question("where?", answer)
    np.testing.assert_array_equal(ids[:before], tokenizer.question("where?")[0])


def test_the_format_spelled_out(tokenizer):
    turns = ["hi", "a 12", "so?", "b"]
    ((ids, counted),) = tokenizer.conversations([turns])
    whole = np.concatenate([tokenizer.prefix(0), ids])
    vocabulary = transformers.PreTrainedTokenizerFast.from_pretrained(TEXT / "tokenizer")
    assert vocabulary.decode(whole) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\na 12<|im_end|>\n"
        "<|im_start|>user\nso?<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    )
    assert vocabulary.decode(ids[counted]) == "a 12<|im_end|>\nb<|im_end|>\n"


def test_masks_become_pairs_in_the_question_only(tokenizer):
    ids, before = tokenizer.question("a <mask>", "the <mask>")
    pair = [tokenizer.mask_rgb_id, tokenizer.mask_depth_id]
    assert [id for id in ids[:before] if id in pair] == pair
    assert not np.isin(ids[before:], pair).any()


def test_decode_stops_at_the_first_eos(tokenizer):
    ids = tokenizer.question("x", " 4.90 meters ")
    generated = np.concatenate([ids[0][ids[1] :], np.full(5, tokenizer.eos_id), [40, 41]])
    assert tokenizer.decode(generated) == "4.90 meters"
    assert tokenizer.decode([tokenizer.eos_id]) == ""
    assert tokenizer.decode(ids[0][ids[1] : ids[1] + 2]) == "4"


def assert_same_ids(left, right, turns):
    (ids, _), (expected, _) = (tokenizer.conversations([turns])[0] for tokenizer in (left, right))
    np.testing.assert_array_equal(ids, expected)


def test_saves_and_loads_an_equal_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "tokenizer")
    again = ChatTokenizer.load(tmp_path / "new" / "tokenizer")
    assert again.vocab_size == tokenizer.vocab_size
    for turns in BATCHES[512]["conversations"]:
        assert_same_ids(again, tokenizer, turns)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["tokenizer"]


def test_a_class_name_in_the_config_does_not_change_the_splitting(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "GPT2Tokenizer"}))
    again = ChatTokenizer.load(tmp_path)
    np.testing.assert_array_equal(again.question("In 2026", "")[0], tokenizer.question("In 2026", "")[0])


def test_a_missing_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        ChatTokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_misspelt_folder_fails_without_asking_the_hub(tmp_path, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)
    with pytest.raises(DataError, match="there is no such folder"):
        ChatTokenizer.load(tmp_path / "missing")


def test_without_the_hub_a_name_is_one_sentence_after_one_look(monkeypatch):
    asked = []

    def fail(name, **_):
        asked.append(name)
        raise OSError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(DataError) as caught:
        ChatTokenizer.load("nowhere")
    assert str(caught.value) == (
        "tokenizer 'nowhere': neither a folder here nor a model that can be fetched from the Hugging Face hub (no network)"
    )
    assert asked == ["nowhere"]


def test_a_model_of_the_hub_is_fetched_and_loaded(tokenizer, tmp_path, monkeypatch):
    tokenizer.with_format(region_names=True).save(tmp_path)
    fetched = {}

    def fetch(name, allow_patterns):
        fetched[name] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    again = ChatTokenizer.load("owner/model")
    assert again.vocab_size == tokenizer.vocab_size and again.format.region_names
    assert {"tokenizer.json", FORMAT_FILE} <= set(fetched["owner/model"])


def test_region_names_stand_before_the_tokens_of_their_region(tokenizer):
    named = tokenizer.with_format(region_names=True)
    prompt = "Is <mask> left of <mask>?"
    ids, before = named.question(prompt, "Yes.")
    plain, plain_before = tokenizer.question(prompt, "Yes.")
    regions = np.flatnonzero(ids == named.mask_rgb_id)
    assert [named.decode([i]) for i in ids[regions - 1]] == ["0", "1"]
    np.testing.assert_array_equal(np.delete(ids, regions - 1), plain)
    assert before == plain_before + 2
    assert not tokenizer.format.region_names


@pytest.mark.parametrize("closing_answer", [False, True])
@pytest.mark.parametrize("region_names", [False, True])
def test_the_chat_format_travels_with_the_tokenizer(tokenizer, tmp_path, region_names, closing_answer):
    changed = tokenizer.with_format(region_names=region_names, closing_answer=closing_answer)
    changed.save(tmp_path / "saved")
    again = ChatTokenizer.load(tmp_path / "saved")
    assert again.format == ChatFormat(region_names, closing_answer)
    assert (tmp_path / "saved" / FORMAT_FILE).exists() is (region_names or closing_answer)


def test_a_chat_format_without_closing_is_read(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / FORMAT_FILE).write_text('{"region_names": true}')
    again = ChatTokenizer.load(tmp_path)
    assert again.format == ChatFormat(region_names=True)


def test_the_length_of_answers_and_what_training_showed_travel_with_the_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert ChatTokenizer.load(tmp_path).format.answer_tokens == 120
    (tmp_path / FORMAT_FILE).write_text('{"answer_tokens": 256}')
    seen = TrainedOn("captions", "pallet", "pallet the", 0.5)
    changed = ChatTokenizer.load(tmp_path).with_format(region_names=True, closing_answer=True, trained_on=seen)
    changed.save(tmp_path)
    again = ChatTokenizer.load(tmp_path)
    assert again.format == ChatFormat(True, True, 256, seen)


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"region_name": true}', '{"closing_answer": "yes"}', '{"trained_on": {"words": 3}}']
    + [f'{{"answer_tokens": {value}}}' for value in ("0", "true", "1.5", '"120"')],
)
def test_a_damaged_chat_format_is_named(tokenizer, tmp_path, text):
    tokenizer.save(tmp_path)
    (tmp_path / FORMAT_FILE).write_text(text)
    with pytest.raises(DataError, match=FORMAT_FILE):
        ChatTokenizer.load(tmp_path)


def test_conversations_of_several_turns_are_their_messages_one_after_another(tokenizer):
    turns = ["Is <mask> left of <mask>?", "Yes.", "How far is <mask>?", "4.90 meters."]
    ((ids, counted),) = tokenizer.conversations([turns])
    spelled = [text.replace("<mask>", PAIR) for text in turns]
    whole, labels = spelled_out(tokenizer, [IMAGE * 4 + spelled[0], *spelled[1:]])
    prefix = tokenizer.prefix(4)
    np.testing.assert_array_equal(np.concatenate([prefix, ids]), whole)
    where = prefix.size + np.flatnonzero(counted) - 1
    expected = np.full_like(labels, -100)
    expected[where] = ids[counted]
    np.testing.assert_array_equal(expected, labels)
    ((prompt, none),) = tokenizer.conversations([turns[:-1]])
    np.testing.assert_array_equal(prompt, ids[: prompt.size])
    assert not none[prompt.size - 5 :].any()


def test_regions_are_numbered_through_a_conversation(tokenizer):
    talk = Question("a", "", "And <mask>?", "No <mask>.", None, earlier=(("<mask> or <mask>?", "The first."),))
    named = ["0<mask> or 1<mask>?", "The first.", "And 2<mask>?", "No <mask>."]
    assert ChatFormat(region_names=True).turns(talk) == named
    assert ChatFormat(region_names=True).turns(talk, with_answer=False) == named[:3]
    assert ChatFormat().turns(talk) == talk.turns
