"""HJB face optimisation: `refine` is the idea, `refiner` what a sampler uses, the rest makes it fit a small
card."""
