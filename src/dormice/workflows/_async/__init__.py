"""The client of workflow runs on asyncio: written by hand."""
