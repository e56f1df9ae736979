"""The HTTP service: `app` (routes), `pool` (bounded work), `work` (what the processes do), `store` (images by name)."""
