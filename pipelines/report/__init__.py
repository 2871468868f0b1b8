"""Reports of results for a reader: one page per result, one per study. Files in, HTML that needs nothing else out."""

from brgm_med.pipelines.report.study import Outcome, study_report
from brgm_med.pipelines.report.subject import report_beside, subject_report

__all__ = ["Outcome", "report_beside", "study_report", "subject_report"]
