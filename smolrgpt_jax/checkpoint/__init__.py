"""The PyTorch release's checkpoint folder: tensor names, layouts, and safetensors files, in both directions."""
