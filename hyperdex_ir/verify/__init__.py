"""Compares a model with itself from pass to pass, and with transformers module by module."""
