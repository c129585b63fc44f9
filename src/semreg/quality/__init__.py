"""Says how good a transform is: landmarks, labels, deformation, similarity, way back; and checks it.

``evaluate`` measures against what is known, ``collect_evidence`` from both images and the transform alone, ``judge``
decides by the thresholds of ``semreg.config.CheckConfig``. Does not know how the transform was found.
"""

from semreg.quality.config import EvaluationConfig
from semreg.quality.evidence import Evidence, collect_evidence, collect_pair, evidence_of
from semreg.quality.landmarks import LandmarkSummary, table_of_landmarks
from semreg.quality.measuring import evaluate, measure
from semreg.quality.overlap import label_overlap
from semreg.quality.reading import of_pixels, read_both, read_label_names, read_landmarks
from semreg.quality.result import Evaluation, stage_evaluation, write_evaluation
from semreg.quality.run import EvaluationRun, Result, locate, read_result
from semreg.quality.subject import Subject, prepare
from semreg.quality.verdict import CheckResult, Verdict, judge

__all__ = [
    "CheckResult",
    "Evaluation",
    "EvaluationConfig",
    "EvaluationRun",
    "Evidence",
    "LandmarkSummary",
    "Result",
    "Subject",
    "Verdict",
    "collect_evidence",
    "collect_pair",
    "evaluate",
    "evidence_of",
    "judge",
    "label_overlap",
    "locate",
    "measure",
    "of_pixels",
    "prepare",
    "read_both",
    "read_label_names",
    "read_landmarks",
    "read_result",
    "stage_evaluation",
    "table_of_landmarks",
    "write_evaluation",
]
