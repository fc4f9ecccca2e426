"""Choosing a strategy: traces of operations, simulated on a virtual clock, and advice from what comes out. No I/O."""

from asynccache.advising.advice import Advice, Need, Verdict, advise
from asynccache.advising.parsing import read_trace
from asynccache.advising.plans import Outcome, Plan, World
from asynccache.advising.simulation import simulate
from asynccache.advising.traces import Operation, Trace, TraceBuilder
from asynccache.advising.workloads import Workload

__all__ = [
    "Advice",
    "Need",
    "Operation",
    "Outcome",
    "Plan",
    "Trace",
    "TraceBuilder",
    "Verdict",
    "Workload",
    "World",
    "advise",
    "read_trace",
    "simulate",
]
