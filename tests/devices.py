"""What XLA is told in tests, this process and all that it starts: how many devices a CPU is, and to compile quickly."""

# XLA compiles a training step in a fifth of the time, and what it makes of it runs at half the speed.
QUICK_TO_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)


def xla_flags(devices: int = 1) -> str:
    """The value of XLA_FLAGS."""
    return f"{QUICK_TO_COMPILE} --xla_force_host_platform_device_count={devices}"
