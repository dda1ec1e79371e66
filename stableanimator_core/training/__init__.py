"""The mathematics of StableAnimator's training: what is drawn, what is minimised, which parameters move."""
