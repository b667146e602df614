"""Where everything lies in a storage, by the names of runs, evaluations, campaigns and fusions.

What a module keeps under a folder of its own, it names itself: `attempts`, `lease`, `engine.checkpoint`. Folders end
with a slash.
"""

RUNS, CAMPAIGNS, EVALUATIONS, FUSIONS = "runs/", "campaigns/", "evaluations/", "fusions/"

# In a run's folder. `eval/` has a document for each row of a table, and the posteriors that they are sums of.
SPEC, JOURNAL, FINAL_RECORD = "spec.json", "journal.jsonl", "final/record.json"
CHECKPOINTS, EVAL = "checkpoints/", "eval/"


def run_folder(run: str) -> str:
    return f"{RUNS}{run}/"


def spec_key(run: str) -> str:
    return run_folder(run) + SPEC


def transplant_key(run: str) -> str:
    """Where each layer's first weights came from."""
    return run_folder(run) + "transplant.json"


def journal_key(run: str) -> str:
    return run_folder(run) + JOURNAL


def live_key(run: str) -> str:
    """The newest point of training."""
    return run_folder(run) + "live.json"


def provenance_folder(run: str) -> str:
    """A document for every start."""
    return run_folder(run) + "provenance/"


def checkpoint_folder(run: str) -> str:
    return run_folder(run) + CHECKPOINTS


def row_key(run: str, row: str) -> str:
    """How many answers were wrong, for a row such as `dense-q256`."""
    return f"{run_folder(run)}{EVAL}{row}.json"


def posteriors_key(run: str, scoring: str) -> str:
    """Of all images, for one pass over them such as `dense-q256`."""
    return f"{run_folder(run)}{EVAL}posteriors/{scoring}.safetensors"


def final_weights_key(run: str) -> str:
    return run_folder(run) + "final/model.safetensors"


def final_record_key(run: str) -> str:
    """Written last of all: the run is finished."""
    return run_folder(run) + FINAL_RECORD


def evaluation_folder(evaluation: str) -> str:
    return f"{EVALUATIONS}{evaluation}/"


def request_key(evaluation: str) -> str:
    """What is evaluated."""
    return evaluation_folder(evaluation) + "request.json"


def plan_key(campaign: str) -> str:
    """What a campaign is to do, and how."""
    return f"{CAMPAIGNS}{campaign}/plan.json"


def driver_folder(campaign: str) -> str:
    return f"{CAMPAIGNS}{campaign}/drivers/"


def fusion_key(fusion: str) -> str:
    """A row that is the mean of several runs."""
    return f"{FUSIONS}{fusion}.json"


def submission_key(digest: str) -> str:
    """The code, packages and command of a submission."""
    return f"submissions/{digest}.json"
