"""Animate Anyone in plain PyTorch: reference network, pose guider, motion modules, sampling.

Paper: Hu et al., Animate Anyone, arXiv:2311.17117. Weights, layouts and constants are those of its open
implementation, MooreThreads/Moore-AnimateAnyone @ a914ef3. What it has in common with StableAnimator (attention,
residual blocks, windows, decoding, loading) is used from there.

Axes as in `stableanimator_core`. `reference`: what the reference network stored of the photo, by block.
"""
