"""Stage 3 on a mixture of warehouse and open spatial questions, drawn by weight.

    python -m launch.train --config configs/mixed.py --workdir runs/mixed --config.init_from=runs/stage2 \
        --config.data.sources.warehouse.root=data/warehouse --config.data.sources.osd.root=data/osd

Length and rates are those of stage 3; an epoch is as many rows as both sets have together.
"""

from ml_collections import ConfigDict

from configs import default, stage3_sft


def get_config() -> ConfigDict:
    config = stage3_sft.get_config()
    config.stage = "mixed"
    config.data.sources.osd = default.osd("data/osd")
    config.data.weights = {"warehouse": 1.0, "osd": 1.0}
    return config
