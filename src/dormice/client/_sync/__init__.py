"""The synchronous client: generated from `_async`, but for `pause.py` and `pagination.py`."""
