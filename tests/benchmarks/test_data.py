"""The data benchmark's loaders read the same questions, and its table says what was measured."""

from __future__ import annotations

from benchmarks import data
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.prepared.reader import read_prepared
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse


def test_all_loaders_read_every_question(tmp_path):
    config = WarehouseConfig(scenes=3, val_scenes=0, test_scenes=0, width=96, height=54)
    make_warehouse(tmp_path / "data", config, workers=1)
    raw = read_warehouse(tmp_path / "data", "train")
    sizes = PrepareConfig(data.SHAPE.image_size, data.SHAPE.mask_grid)
    prepare({"train": raw}, tmp_path / "prepared", sizes, workers=1)
    tokenizer = ChatTokenizer.load(data.TOKENIZER)
    questions = sum(len(picture.questions) for picture in raw)
    assert data.plain_loader(raw, tokenizer) == questions
    assert data.packed_loader(raw, tokenizer) == questions
    assert data.packed_loader(read_prepared(tmp_path / "prepared", "train"), tokenizer) == questions


def test_the_table_compares_with_the_first():
    assert "| b | 6.0 | 3.0 x |" in data.table({"a": 2.0, "b": 6.0})
