"""Subjects of the lab: anything with encode, decode and a standard normal prior; NumPy arrays in and out."""
