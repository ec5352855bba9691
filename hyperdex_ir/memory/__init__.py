"""Contents and layout of a model's HBM, shared by the lowering pass, the image writer and the runtime."""
