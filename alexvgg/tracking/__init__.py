"""What a run writes down: a journal in its storage, which is the truth, and MLflow, which never holds training up."""
