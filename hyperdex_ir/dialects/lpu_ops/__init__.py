"""The operations of the `lpu` dialect, by topic."""
