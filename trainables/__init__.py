"""Distillation methods, networks, data and the one training loop: torch, never Ray."""
