"""Says how good a transform is: landmarks, labels, deformation, similarity, way back. Knows not how it was found."""

from semreg.evaluation.config import EvaluationConfig
from semreg.evaluation.landmarks import landmark_summary, table_of_landmarks
from semreg.evaluation.measuring import evaluate, measure
from semreg.evaluation.overlap import label_overlap
from semreg.evaluation.reading import Result, locate, of_pixels, read_label_names, read_landmarks, read_result
from semreg.evaluation.result import Evaluation, stage_evaluation, write_evaluation
from semreg.evaluation.subject import Subject, prepare

__all__ = [
    "Evaluation",
    "EvaluationConfig",
    "Result",
    "Subject",
    "evaluate",
    "label_overlap",
    "landmark_summary",
    "locate",
    "measure",
    "of_pixels",
    "prepare",
    "read_label_names",
    "read_landmarks",
    "read_result",
    "stage_evaluation",
    "table_of_landmarks",
    "write_evaluation",
]
