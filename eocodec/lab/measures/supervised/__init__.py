"""The measures of disentanglement that people expect, from codes `(n, K)` and true factors `(n, m)`.

Every one takes `codes`, `Factors`, and which latents are `active`; dead latents are left out, since estimates of what
they tell are noise. Values are rescaled so that the truth, permuted, gives 1 and noise about 0.
"""
