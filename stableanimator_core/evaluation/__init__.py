"""Honest judgement on people and motions that no network was trained on.

    python -m stableanimator_core.evaluation --weights DIR --out DIR

Drawn people are animated from one of their frames by the model and by versions of it with a part taken out; every
version gets the same clips and the same noise, so that differences are paired. Axes: f frames, H W pixels, j joints.
"""
