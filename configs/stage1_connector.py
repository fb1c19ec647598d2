"""Stage 1, connector alignment: LLaVA-CC3M captions, RGB only; trains the RGB connector.

    python -m launch.train --config configs/stage1_connector.py --workdir runs/stage1 \
        --config.init_from=checkpoints/backbones --config.data.sources.captions.root=data/llava-cc3m

Published: 580,491 samples, batch 240, 20 epochs, peak 1e-4. A caption row holds several pictures, so 240 samples are fewer rows.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.stage = "connector_alignment"
    config.epochs = 20.0
    config.data.row_tokens = 512
    config.data.row_pictures = 4
    config.batch_rows = 60
    config.data.sources = {"captions": default.captions("data/llava-cc3m", "chat.json", "images")}
    return config
