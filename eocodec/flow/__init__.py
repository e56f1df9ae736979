"""The flows, their objective and their training, in torch (extra `train`)."""
