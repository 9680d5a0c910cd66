"""CUDA kernels, run in the emulator from the plans that would launch them on a chip."""
