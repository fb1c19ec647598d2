"""Stage 3, supervised fine-tuning on the warehouse questions; trains everything but the encoder.

    python -m launch.train --config configs/stage3_sft.py --workdir runs/stage3 \
        --config.init_from=runs/stage2 --config.data.sources.warehouse.root=data/warehouse

Published: 499,083 samples, batch 112, up to 20 epochs (stopped at 4), all rates 5e-5. A row holds about 8 questions.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.stage = "sft"
    config.epochs = 4.0
    config.batch_rows = 16
    config.data.sources = {"warehouse": default.warehouse("data/warehouse", "train")}
    config.validation_sources = {"warehouse": default.warehouse("data/warehouse", "val")}
    return config
