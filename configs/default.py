"""Every setting of a training run, with the published values where the paper gives one.

The stage configurations beside this file change what they must; this file is not launched itself.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "stage": "sft",  # an entry of smolrgpt_jax.training.stages.STAGES
            "seed": 0,
            # A PyTorch folder, a converted checkpoint or an earlier stage's work directory; empty: random parameters.
            "init_from": "",
            # Parts of the model drawn from the seed in place of what init_from brings: rgb_connector, depth_connector, refiners.
            "fresh": (),
            "any_stage_order": False,  # allows a stage to follow one that it does not follow in the curriculum
            "tokenizer": "",  # folder or hub id; empty: the one that init_from brings
            # attention: xla, splash (TPU), cudnn (GPU) or auto; see smolrgpt_jax.models.attention.
            "model": {"preset": "smolrgpt", "compute_dtype": "bfloat16", "remat": "full", "attention": "auto"},
            "batch_rows": 64,  # packed rows of all devices together, per step
            "accumulation": 1,  # parts the rows are taken in, one after another
            # Each of an answer's n tokens weighs n ** -question_balance in the loss. 0: all tokens alike, as published; 1: all questions.
            "question_balance": 0.0,
            "epochs": 1.0,
            "steps": 0,  # instead of epochs
            "stop_epochs": 0.0,  # ends the run after so many, with the learning rates of all of them; 0: it does not
            "optimizer": {
                "warmup": 0.03,
                "final": 0.1,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "peaks": {},
            },
            "data": {
                "sources": {},  # name -> see smolrgpt_jax.data.sources.formats.read_source
                "weights": {},  # source name -> share of a mixture without end; empty: every row once per epoch
                # Tokens of a packed row; 0 chooses the length up to max_row_tokens that leaves the least padding. With two
                # pictures of the published number of questions, rows of 768 tokens are 96 % filled.
                "row_tokens": 768,
                "max_row_tokens": 2048,
                "row_pictures": 2,
                "row_regions": 18,
                "depth_mode": "training",
                "region_names": False,  # the number of each region before its tokens; published: not
                "closing_answer": False,  # answers end with their normalised value; published: not
                "on_bad_record": "error",
                "cached_pictures": 0,
                "threads": 4,  # that build batches, in each worker
                "workers": 0,  # processes that build batches; 0: the training process itself
            },
            "validation_sources": {},
            "validation_rows": 256,
            "validate_every": 500,
            "validation_answers": 0,  # questions answered by generation and scored at every validation
            "validation_answer_tokens": 120,
            # The checkpoint with its best value is kept besides the last ones: WORKDIR/best. A column of metrics.csv.
            "best_metric": "validation_loss",
            "patience": 0,  # validations without a better value that end the run; 0: none do
            "strategy": "zero1",  # what is split over devices, see smolrgpt_jax.sharding: data, zero1 or fsdp
            # Sizes; 0: chosen for the strategy, -1 (one of them): what is left.
            "mesh": {"data": 0, "fsdp": 0, "tensor": 0},
            "log_every": 20,
            "save_every": 500,
            "keep": 2,  # newest checkpoints
            "profile": {"first": 0, "steps": 3},  # steps to trace into WORKDIR/profile; first 0: none
            "wandb_project": "",  # metrics also go there; needs the wandb extra
        }
    )


def warehouse(root: str, split: str, annotations: str | None = None) -> dict:
    """A source in the published warehouse format."""
    source = {"format": "warehouse", "root": root, "split": split}
    return source if annotations is None else {**source, "annotations": annotations}


def osd(root: str) -> dict:
    """A source in the Open Spatial Dataset's format."""
    return {
        "format": "osd",
        "root": root,
        "annotations": "result_10_depth_convs.json",
        "images": "images",
        "depths": "depths",
    }
