"""Many pairs: tables of pairs, a run that can be resumed, on this machine or a cluster, and the page that sums it up.

Every pair is registered by a process of its own. Knows nothing of how a registration works.
"""

from semreg.batch.batch import BatchOptions, BatchResult, plan_batch, run_batch, threads_of
from semreg.batch.bids import bids_pairs
from semreg.batch.cluster import DaskScheduler
from semreg.batch.derivatives import check_derivatives, write_derivatives
from semreg.batch.jobs import Digests, Job, JobFlags, Step, make_job
from semreg.batch.measures import cohort_rows, write_csv
from semreg.batch.page import write_page
from semreg.batch.pairs import Pair
from semreg.batch.schedulers import LocalScheduler, Scheduler
from semreg.batch.table import read_table

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
    "check_derivatives",
    "cohort_rows",
    "make_job",
    "plan_batch",
    "read_table",
    "run_batch",
    "threads_of",
    "write_csv",
    "write_derivatives",
    "write_page",
]
