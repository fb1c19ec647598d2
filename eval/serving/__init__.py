"""The OpenAI-compatible server: requests read and checked, one thread that owns the model, endpoints."""
