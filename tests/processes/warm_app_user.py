"""The model of `warm_app`, which its tests read without making its cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class User:
    """A row."""

    id: int
    name: str
