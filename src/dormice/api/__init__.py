"""The HTTP surface: decodes what people ask, has the engine decide, encodes what it says."""
