"""Subjects of the lab: anything with encode, decode and a standard normal prior, behind one interface of NumPy arrays."""
