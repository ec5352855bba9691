"""An extension of hyperdex-ir."""
