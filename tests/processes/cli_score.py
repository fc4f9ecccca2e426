"""The model of the command line's test application."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Score:
    id: int
    points: int
