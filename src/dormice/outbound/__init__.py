"""Requests that the server makes to addresses which others have named: judged once, connected to as judged, never redirected."""
