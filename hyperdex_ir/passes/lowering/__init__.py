"""Lowering of the operations of the `lpu` dialect to instructions, for `lower-lpu-to-isa`."""
