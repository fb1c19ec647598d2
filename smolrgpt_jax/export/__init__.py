"""Export: the model as programs that run without this library, on a CPU, an NVIDIA GPU or a TPU."""
