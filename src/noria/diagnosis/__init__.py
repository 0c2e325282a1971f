"""Diagnosis: from symptoms to ranked, tested causes and the step to return to."""

from noria.diagnosis.diagnose import diagnose
from noria.diagnosis.symptoms import new_symptoms

__all__ = ["diagnose", "new_symptoms"]
