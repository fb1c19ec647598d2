"""Stage 3 on a mixture of warehouse and open spatial questions, drawn by weight.

    python -m launch.train --config configs/mixed.py --workdir runs/mixed --config.init_from=runs/stage2 \
        --config.data.sources.warehouse.root=data/warehouse --config.data.sources.osd.root=data/osd

Length and rates are those of stage 3; an epoch is as many rows as both sets have together.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.stage = "mixed"
    config.epochs = 20.0
    config.stop_epochs = 4.0
    config.batch_rows = 16
    config.data.sources = {"warehouse": default.warehouse("data/warehouse", "train"), "osd": default.osd("data/osd")}
    config.data.weights = {"warehouse": 1.0, "osd": 1.0}
    config.validation_answers = 256
    config.validation_sources = {"warehouse": default.warehouse("data/warehouse", "val")}
    return config
