"""The forms of file: how latents become bytes. One class a form (`eocodec.coding.base.Coding`), one registry.

Knows models and the format, never the facade (`eocodec.codec`).
"""
