"""Measures of latents: arrays or a subject in, figures out; never a class of model.

Conventions: data `x (n, p)`, codes `z (n, K)`, factors `v (n, m)`, Jacobians of the decoder `(n, p, K)`, whose column k
is `J_k`; an association matrix is `(K, p)`, latents by features. Entropies and informations are in nats.
"""
