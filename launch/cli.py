"""The `smolrgpt` command: `smolrgpt COMMAND ...` is `python -m MODULE ...`, under names that are easy to remember."""

import importlib
import sys

from smolrgpt_jax.errors import told

COMMANDS = {
    "demo": ("launch.demo", "the whole way on one machine: warehouse, three stages, evaluation, report"),
    "train": ("launch.train", "train one stage from a configuration"),
    "predict": ("eval.predict", "answer one question about one picture"),
    "page": ("eval.page.__main__", "a local web page: mark regions, ask, read the answer"),
    "evaluate": ("eval.warehouse", "answer and score a split of the warehouse benchmark"),
    "score": ("eval.score_warehouse", "the official scores of a submission"),
    "bench": ("eval.spatialrgpt_bench", "answer and score SpatialRGPT-Bench"),
    "compare": ("eval.compare", "two evaluations on the same questions, paired"),
    "normalize": ("eval.normalize", "read the values of existing answers again, without a model"),
    "samples": ("eval.samples", "what a checkpoint says about its own data, as one HTML page"),
    "studies": ("eval.studies.__main__", "what answers rest on, and what the model's parts are worth"),
    "router": ("eval.router", "where a router of questions and the rules differ"),
    "curves": ("eval.learning_curves", "scores of each category during trainings that differ by seed"),
    "side-questions": ("eval.side_questions", "left or right about records whose pictures are not at hand"),
    "convert": ("convert.__main__", "PyTorch checkpoints to JAX and back; backbones; verify; inspect"),
    "export": ("launch.export", "programs that run without this library"),
    "prepare": ("launch.prepare_data", "decode and resize a data set once, for training"),
    "warehouse": ("launch.make_warehouse", "make a procedural warehouse in the published folder format"),
    "gallery": ("launch.warehouse_gallery", "a contact sheet of a warehouse"),
    "train-tokenizer": ("launch.train_tokenizer", "train a small tokenizer with SmolLM2's structure"),
    "train-router": ("launch.train_router", "train the router of questions or answers"),
    "tpu-report": ("launch.compile_for_tpu", "compile the real step for a TPU topology, without a TPU"),
    "tpu-pod": ("launch.tpu_pod", "train on a slice of TPU VMs"),
    "gke": ("launch.gke", "train on TPU slices of a GKE cluster"),
    "xpk": ("launch.xpk", "the same through XPK"),
    "slurm": ("launch.slurm", "train on the GPUs of a Slurm cluster"),
}


@told()
def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print("smolrgpt COMMAND [options]: small spatial vision-language models, trained and evaluated\n")
        print(*(f"  {command:<15} {what}" for command, (_, what) in COMMANDS.items()), sep="\n")
        print("\nsmolrgpt COMMAND --help tells its options and gives an example.")
        return
    if name not in COMMANDS:
        raise SystemExit(f"error: there is no command {name!r}, only {', '.join(COMMANDS)}")
    sys.argv[:2] = [f"smolrgpt {name}"]
    importlib.import_module(COMMANDS[name][0]).main()
