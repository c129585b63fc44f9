"""A verdict on a result, PASS, LOOK or FAIL, with its reasons, from both images and the transform alone.

``collect_evidence`` measures, ``judge`` decides by the thresholds of ``semreg.config.GateConfig``.
"""

from semreg.gates.evidence import Evidence, collect_evidence, collect_pair
from semreg.gates.verdict import Gate, Verdict, judge

__all__ = ["Evidence", "Gate", "Verdict", "collect_evidence", "collect_pair", "judge"]
