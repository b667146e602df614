"""What MLflow is told of a run, without a server."""

import json

from alexvgg.tracking.remote import UsedDataset, _dataset_input


def test_a_datasets_url_may_hold_anything() -> None:
    url = 'file:///data/a "b" \\c'
    told = _dataset_input(UsedDataset("digits", "f" * 64, url))
    assert json.loads(told.dataset.source) == {"uri": url}
