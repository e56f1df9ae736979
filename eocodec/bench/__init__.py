"""Comparisons with other programs on folders of pictures (extra `bench`).

pictures.py     a folder's pictures, and the machine
codecs.py       every codec as an object in a registry: name, settings, encode, decode
measures.py     every measure as an object in a registry: name, function, direction
scores.py       values of measures, in parallel, kept in the user's cache by content
compression.py  rate against quality, Bjøntegaard rate differences, plots
plots.py        figures as files
sheets.py       crops at equal bytes, to look at
denoising.py    noise removed by several methods
"""
