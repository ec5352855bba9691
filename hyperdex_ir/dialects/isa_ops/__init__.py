"""The operations of the `isa` dialect, by topic."""
