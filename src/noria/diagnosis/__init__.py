"""Diagnosis: from symptoms to ranked, tested causes and the step to return to."""

from noria.diagnosis.diagnose import diagnose, of_period
from noria.diagnosis.symptoms import new_symptoms, open_faults

__all__ = ["diagnose", "new_symptoms", "of_period", "open_faults"]
