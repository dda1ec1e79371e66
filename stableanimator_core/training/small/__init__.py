"""Training of the small family's frozen networks: VAE, image encoder, face recogniser, judge, joint finder."""
