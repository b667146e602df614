"""What fills a table: its rows' runs with all that they start from, and the evaluations that training doesn't do."""

from collections import Counter
from collections.abc import Mapping, Sequence

from alexvgg.config import RunSpec
from alexvgg.errors import InputError
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import Geometry
from alexvgg.request import Request
from alexvgg.results.paper import ABLATIONS, TABLES, PaperRow, own_method

TARGETS = (*TABLES, "all")


def rows_of(target: str, chosen: Sequence[int] | None = None) -> list[PaperRow]:
    """The rows to fill of a table, or of `all` that the papers print; `chosen` are their numbers, from 1.

    Rows of other people's nets can't be filled, and are left out if they aren't chosen. Raises InputError if they are,
    and for numbers that the table hasn't.
    """
    if target == "all":
        if chosen is not None:
            raise InputError("--rows belongs to one table; name it instead of all")
        return [row for table in TABLES if table != ABLATIONS for row in rows_of(table)]
    rows = TABLES[target]
    for n in chosen or ():
        if not 1 <= n <= len(rows):
            raise InputError(f"{target} has rows 1 to {len(rows)}, no row {n}")
        if not rows[n - 1].nets:
            raise InputError(
                f"row {n} of {target} is {rows[n - 1].title}, of other people: it can't be reproduced here"
            )
    return [row for n, row in enumerate(rows, 1) if row.nets and (chosen is None or n in chosen)]


def plan_rows(
    rows: Sequence[PaperRow], images: Images, geometry: Geometry, overrides: Mapping[str, str]
) -> tuple[list[RunSpec], list[Request]]:
    """The runs that rows need, parents first, and the evaluations of those that the runs' own don't fill.

    A net that stands n times in a row is n runs of different seeds. Raises InputError for settings that would change
    what a table is.
    """
    if "test_scales" in overrides:
        raise InputError("a table's test scales are the table's own; omit --set test_scales")
    specs: dict[str, RunSpec] = {}
    requests: dict[str, Request] = {}
    for row in rows:
        members = _members(row, images, geometry, overrides, specs)
        own = len(row.nets) == 1 and row.method == own_method(row.nets[0].model)
        if not (own and row.nets[0].test_scales in members[0].test_scales):
            request = _request(row, members)
            requests[request.name] = request
    return list(specs.values()), list(requests.values())


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"train.seed={text}: a table's nets have whole numbers from 0 on as seeds")
    return int(text)


def _members(
    row: PaperRow, images: Images, geometry: Geometry, overrides: Mapping[str, str], specs: dict[str, RunSpec]
) -> list[RunSpec]:
    """The runs that are the row's nets; they and all they start from are added to `specs`."""
    members, seen = [], Counter[str]()
    first = _seed(overrides.get("train.seed", "0"))
    for net in row.nets:
        seed = {"train.seed": str(first + seen[net.recipe.name])}
        planned = plan_runs([net.recipe], images, geometry, overrides={**overrides, **seed})
        specs.update({s.name: s for s in planned})
        members.append(planned[-1])
        seen[net.recipe.name] += 1
    return members


def _request(row: PaperRow, members: Sequence[RunSpec]) -> Request:
    # Nets that are tested at different scales have each the recipe's own, the Q's of Table 4.
    scales = {net.test_scales for net in row.nets}
    return Request(
        tuple(spec.name for spec in members), row.method, scales.pop() if len(scales) == 1 else None, len(members) > 1
    )
