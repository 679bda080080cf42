"""The workflow surface: /api/v1 and /internal (contract `workflows-api`)."""
