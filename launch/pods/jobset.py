"""A training as a JobSet of Kubernetes (jobset.x-k8s.io/v1alpha2) on TPU slices of GKE, from the template jobset.yaml."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from launch.pods.commands import SAVE_SECONDS
from smolrgpt_jax.chips import Slice
from smolrgpt_jax.distributed import PORT

TEMPLATE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class JobSet:
    """One Job per slice, one pod per host, all chips of the host for the pod."""

    name: str
    tpu: Slice
    image: str
    command: Sequence[str]  # of every pod
    slices: int = 1
    spot: bool = False
    bucket: str | None = None  # mounted at /gcs through GKE's Cloud Storage FUSE driver
    service_account: str | None = None  # a Kubernetes one, which needs access to the bucket
    max_restarts: int = 100

    @property
    def longest_name(self) -> int:
        """Characters that the name may have: JobSet refuses one whose pods, named so at the longest, would have more than 63."""
        return 63 - len(f"-slice-{self.slices - 1}-{self.tpu.hosts - 1}-abcde")

    def manifest(self) -> dict[str, Any]:
        template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
        return yaml.safe_load(template.render(vars(self), save_seconds=SAVE_SECONDS, port=PORT))
