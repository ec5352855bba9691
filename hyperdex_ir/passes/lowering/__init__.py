"""How `lower-lpu-to-isa` turns each operation of the `lpu` dialect into instructions."""
