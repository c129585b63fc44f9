"""Many pairs: tables of pairs, a run that can be resumed, on this machine or a cluster, and the page that sums it up.

Every pair is registered by a process of its own. Knows nothing of how a registration works.
"""

from semreg.cohort.batch import BatchOptions, BatchResult, plan_batch, run_batch, threads_of
from semreg.cohort.bids import bids_pairs
from semreg.cohort.cluster import DaskScheduler
from semreg.cohort.jobs import Digests, Job, JobFlags, Step, make_job
from semreg.cohort.measures import cohort_rows, write_csv
from semreg.cohort.page import write_page
from semreg.cohort.pairs import Pair
from semreg.cohort.schedulers import LocalScheduler, Scheduler
from semreg.cohort.table import read_table

__all__ = [
    "BatchOptions",
    "BatchResult",
    "DaskScheduler",
    "Digests",
    "Job",
    "JobFlags",
    "LocalScheduler",
    "Pair",
    "Scheduler",
    "Step",
    "bids_pairs",
    "cohort_rows",
    "make_job",
    "plan_batch",
    "read_table",
    "run_batch",
    "threads_of",
    "write_csv",
    "write_page",
]
