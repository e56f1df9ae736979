"""What a bundle is and where it runs: files, manifest, graphs, sessions, the transform in tiles, the library of models.

Knows the format only as far as files name their model, never how latents are coded (`eocodec.coding`).
"""
