"""What a campaign is: trainings and evaluations, parents first, and how each is carried out.

    campaigns/<campaign>/plan.json

The works are part of a campaign's identity, how they are carried out isn't. So the plan may be written again: whoever
submits it anew, with other nodes, decides how the works are carried out that start from then on.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alexvgg.campaign.dag import Node, Workers, among
from alexvgg.config import Execution, RunSpec, from_dict, to_dict
from alexvgg.data.documents import encode, read_document
from alexvgg.data.store import Store
from alexvgg.keys import evaluation_folder, plan_key, request_key, run_folder, spec_key
from alexvgg.request import Request
from alexvgg.runs import is_finished


@dataclass(frozen=True)
class Training:
    """One run. `cost` is its share of the campaign's arithmetic."""

    spec: RunSpec
    cost: float = 1.0

    @property
    def node(self) -> Node:
        return Node(self.spec.name, (self.spec.parent.run,) if self.spec.parent else (), self.cost)

    @property
    def folder(self) -> str:
        return run_folder(self.spec.name)

    @property
    def about(self) -> str:
        """How it starts, for people."""
        start = (
            f"{self.spec.parent.run} ({self.spec.parent.how})"
            if self.spec.parent
            else f"random ({self.spec.init.kind})"
        )
        return f"from {start}"

    def describe(self, storage: Store) -> None:
        """Write down what the job that carries it out has to know."""
        storage.put_new(spec_key(self.spec.name), encode(to_dict(self.spec)))

    def is_done(self, storage: Store) -> bool:
        """Whether it was finished by whatever: a campaign or a plain process."""
        return is_finished(storage, self.spec.name)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of finished runs."""

    request: Request

    @property
    def node(self) -> Node:
        return Node(self.request.name, self.request.runs, 0.0, self.request.passes)

    @property
    def folder(self) -> str:
        return evaluation_folder(self.request.name)

    @property
    def about(self) -> str:
        """What is evaluated, for people."""
        return f"of {' + '.join(self.request.runs)} ({self.request.method})"

    def describe(self, storage: Store) -> None:
        """Write down what the job that carries it out has to know."""
        storage.put_new(request_key(self.request.name), encode(to_dict(self.request)))

    def is_done(self, storage: Store) -> bool:
        """Only its attempts know."""
        return False


Work = Training | Evaluation


@dataclass(frozen=True)
class Campaign:
    """`works` have parents first."""

    name: str
    works: tuple[Work, ...]
    execution: Execution

    @property
    def nodes(self) -> list[Node]:
        """Of its works. A parent that was given, finished, isn't among them."""
        return among([work.node for work in self.works])

    @property
    def workers(self) -> Workers:
        e = self.execution
        return Workers(e.min_workers or e.workers, e.workers)

    def save(self, storage: Store) -> None:
        works: list[dict[str, Any]] = [
            {"spec": to_dict(w.spec), "cost": w.cost} if isinstance(w, Training) else {"request": to_dict(w.request)}
            for w in self.works
        ]
        document = {"works": works, "execution": to_dict(self.execution)}
        storage.put(plan_key(self.name), encode(document))

    @classmethod
    def load(cls, storage: Store, name: str) -> "Campaign":
        """Raises InputError, naming the plan, if it can't be read."""

        def made_of(document: dict[str, Any]) -> Campaign:
            works = tuple(
                Training(from_dict(RunSpec, w["spec"]), w["cost"])
                if "spec" in w
                else Evaluation(from_dict(Request, w["request"]))
                for w in document["works"]
            )
            return cls(name, works, from_dict(Execution, document["execution"]))

        return read_document(storage, plan_key(name), made_of)


def name_of(target: str, works: Sequence[Work]) -> str:
    """A name that follows from what is to be done, e.g. `table4-3f2a91c4`."""
    names = json.dumps(sorted(w.node.name for w in works))
    return f"{target}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
