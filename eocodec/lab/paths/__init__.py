"""Flow-factorised paths: each transformation of a picture is a flow in latent space, the gradient of a potential.

References:
    Song, Keller, Sebe & Welling, *Flow factorized representation learning*, NeurIPS 2023.
"""
