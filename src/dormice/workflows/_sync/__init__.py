"""The client of workflow runs that blocks: generated from `_async`."""
