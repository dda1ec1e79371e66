"""StableAnimator in plain PyTorch: networks, sampling, poses, faces. Nothing here imports ComfyUI.

Paper: Tu et al., StableAnimator: High-Quality Identity-Preserving Human Image Animation, arXiv:2411.17697.

Axes, used in every shape comment of this package:
b batch, f frames, c channels, h w height and width (of latents: pixels / 8), H W height and width in pixels,
n tokens, d token width, e identity embedding (512).

Words: `x0` predicted clean latents, `sigma` noise level, `identity` the 512 ArcFace numbers, `face_tokens` the four
tokens made from it, `poses` skeleton pictures, `pose_features` what PoseNet makes of them, `window_size` and `overlap`
for long clips, `face_boxes` where the face is in each frame.
"""
