"""The lab: what latents mean, measured beside the methods people compare with (extra `lab`).

Rooms, each knowing only those above it:

    data       generated and given sets with their factors
    subjects   anything with encode, decode and a prior: PCA, dense flows, `face64`, VAEs
    measures   arrays or a subject in, figures out
    paths      flows in latent space that stand for transformations of the picture
    report     the whole of it from one TOML file: a page, JSON, a table

Importing the package or `eocodec.lab.measures` needs no torch; training does.
"""
