"""Stage 2, refiner alignment: spatial questions with depth and masks; trains both connectors and both refiners.

    python -m launch.train --config configs/stage2_refiner.py --workdir runs/stage2 \
        --config.init_from=runs/stage1 --config.data.sources.osd.root=data/osd

Published: 1,072,510 samples of the Open Spatial Dataset, batch 224, 1 epoch, connectors 5e-5, refiners 1e-4.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.stage = "refiner_alignment"
    config.batch_rows = 56
    config.data.sources = {"osd": default.osd("data/osd")}
    return config
