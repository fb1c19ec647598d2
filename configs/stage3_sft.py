"""Stage 3, supervised fine-tuning on the warehouse questions; trains everything but the encoder.

    python -m launch.train --config configs/stage3_sft.py --workdir runs/stage3 \
        --config.init_from=runs/stage2 --config.data.sources.warehouse.root=data/warehouse

Published: 499,083 samples, batch 112, learning rates of 20 epochs, stopped at 4, all peaks 5e-5. A row holds about 8 questions.
Every 500 steps the loss and the scores of answers to 256 questions are validated; the best checkpoint is runs/stage3/best.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.stage = "sft"
    config.epochs = 20.0
    config.stop_epochs = 4.0
    config.batch_rows = 16
    config.data.sources = {"warehouse": default.warehouse("data/warehouse", "train")}
    config.validation_answers = 256
    config.validation_sources = {"warehouse": default.warehouse("data/warehouse", "val")}
    # Follows --config.data.sources.warehouse.root, unless it is given itself.
    config.validation_sources.warehouse.root = config.data.sources.warehouse.get_oneway_ref("root")
    return config
