"""Answers of decoders from vLLM, which runs in an environment of its own, compared with this project's before use."""
