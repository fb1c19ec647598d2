"""Trains the router: a Longformer that tells the benchmark's categories apart, by the question or by the answer."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from eval.command_line import command_line
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.router import classify

DEMO_TOKENIZER = Path(__file__).parents[1] / "configs" / "demo_tokenizer"
BEGIN, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"  # of the demo's tokenizer
POSITIONS = 512  # tokens; the longest of 654 published questions takes 126
SIZES: dict[str, Any] = {"width": 64, "mlp_width": 128, "heads": 4, "layers": 2, "window": 64}
PEAK_NEW, PEAK_PRETRAINED = 1e-3, 3e-5


def starting_point(init: Path | None, seed: int) -> tuple[Any, dict, dict[str, Any], dict[str, str]]:
    """Configuration, parameters, config.json and tokenizer files to train from; the classification head is always new."""
    import jax

    from smolrgpt_jax.router.hf_folder import longformer_config_values, read_longformer
    from smolrgpt_jax.router.longformer import LongformerConfig, init_params

    key = jax.random.key(seed)
    if init is None:
        files = classify.classifier_tokenizer_files(DEMO_TOKENIZER, BEGIN, END, PAD)
        tokenizer = classify.RouterTokenizer(files[classify.TOKENIZER_FILE], POSITIONS)
        begin, end, pad = (tokenizer.token_id(token) for token in (BEGIN, END, PAD))
        sizes = {**SIZES, "vocab_size": tokenizer.vocab_size, "positions": POSITIONS + pad + 1}
        config = LongformerConfig(WAREHOUSE_CATEGORIES, pad_id=pad, **sizes)
        special = {"bos_token_id": begin, "eos_token_id": end, "sep_token_id": end}
        return config, init_params(config, key), {**longformer_config_values(config), **special}, files
    read, params, values = read_longformer(init, encoder_only=True)
    config = dataclasses.replace(read, labels=WAREHOUSE_CATEGORIES)
    values = {**values, **longformer_config_values(config)}
    # The name of "dtype" before transformers 5.
    values.pop("torch_dtype", None)
    return config, {**init_params(config, key), **params}, values, classify.read_tokenizer_files(init)


def run(arguments: argparse.Namespace) -> None:
    from smolrgpt_jax.router.fitting import RouterTraining, train_router
    from smolrgpt_jax.router.hf_folder import write_longformer

    if arguments.out.exists():
        raise DataError(f"{arguments.out} exists already; nothing was trained")
    texts = classify.read_router_texts(arguments.data, arguments.text)
    # A class that is never shown is never answered.
    if missing := [name for name in WAREHOUSE_CATEGORIES if all(text.category != name for text in texts)]:
        raise DataError(f"{arguments.data} holds no record of category {', '.join(missing)}")
    validation = [] if arguments.val is None else classify.read_router_texts(arguments.val, arguments.text)
    config, params, values, files = starting_point(arguments.init, arguments.seed)
    tokenizer = classify.RouterTokenizer(files[classify.TOKENIZER_FILE], config.longest, config.vocab_size)
    start, usual = ("new", PEAK_NEW) if arguments.init is None else (f"from {arguments.init}", PEAK_PRETRAINED)
    peak = usual if arguments.learning_rate is None else arguments.learning_rate
    training = RouterTraining(arguments.steps, arguments.batch, peak, arguments.seed)
    model = f"a Longformer of {config.layers} layers of width {config.width} ({start})"
    data = f"{len(texts)} {arguments.text}s of {arguments.data}"
    how = f"{training.steps} steps of {training.batch}, learning rate {peak:g}, seed {training.seed}"
    print(f"training {model} on {data}: {how}; writing {arguments.out}", flush=True)
    rows, truncated = tokenizer.encode([text.text for text in texts])
    if truncated:
        print(f"{truncated} {arguments.text}s are longer than {config.longest} tokens and are cut")
    labels = [config.labels.index(text.category) for text in texts]
    params, _ = train_router(config, params, rows, labels, training)
    write_longformer(arguments.out, config, params, {**values, classify.KIND_FIELD: arguments.text}, files)
    print(f"wrote {arguments.out}")
    if validation:
        found = classify.load_router(arguments.out).categories([text.text for text in validation], progress=True)
        right = sum(text.category == category for text, category in zip(validation, found))
        print(f"{right} of {len(validation)} {arguments.text}s of {arguments.val} get their category")


@told()
def main() -> None:
    parser = command_line("launch.train_router", __doc__, text=classify.TEXT_KINDS)
    peaks = f"default {PEAK_NEW:g}, with --init {PEAK_PRETRAINED:g}"
    parser.add_argument("--learning_rate", type=float, help=f"peak of the schedule ({peaks})")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
