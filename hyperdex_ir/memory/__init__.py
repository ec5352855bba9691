"""What a model stores in HBM, and where: shared by the lowering pass, the image writer and the runtime."""
