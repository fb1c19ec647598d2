"""Prepared data: pictures decoded and resized once, in a TensorFlow Datasets folder of ArrayRecord files."""
