"""Verification: compares a model before and after each compiler pass, and with transformers module by module."""
