"""Sets of samples for the lab: generated, shipped with packages, or given; with the factors they were made from."""
