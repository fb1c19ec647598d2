"""Export: the model as programs that run without this library, on a CPU, an NVIDIA GPU or a TPU."""

from smolrgpt_jax.export.folder import write_export
from smolrgpt_jax.export.programs import PLATFORMS, ExportSettings

__all__ = ["PLATFORMS", "ExportSettings", "write_export"]
