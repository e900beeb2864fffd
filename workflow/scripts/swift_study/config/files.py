"""Where results are: a path for each thing that a rule makes and another one reads."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Files:
    """The paths below the folder of results."""

    results: str

    def dataset(self, name: str) -> str:
        return f"{self.results}/data/{name}.parquet"

    def datasets(self, names: Iterable[str]) -> list[str]:
        return [self.dataset(name) for name in names]

    def rejects(self, dataset: str) -> str:
        """What was left out of a dataset, and why."""
        return f"{self.results}/data/rejects/{dataset}.parquet"

    def account(self, dataset: str) -> str:
        """What a teacher cost."""
        return f"{self.results}/data/accounts/{dataset}.parquet"

    def leakage(self, study: str) -> str:
        """The check that nothing is trained on that the study holds out."""
        return f"{self.results}/data/leakage/{study}.parquet"

    def model(self, name: str) -> str:
        """What is known of a model: where it is, and a hash of its weights."""
        return f"{self.results}/models/{name}.json"

    def lengths(self, model: str, datasets: Iterable[str]) -> list[str]:
        """How long the examples of these datasets are for a model."""
        return [f"{self.results}/lengths/{model}/{dataset}.parquet" for dataset in datasets]

    def checkpoints(self, run: str) -> str:
        """A folder."""
        return f"{self.results}/runs/{run}/checkpoints"

    def gradients(self, run: str, study: str) -> str:
        """A folder: per-example gradients of the study's panel at every checkpoint of the run."""
        return f"{self.results}/gradients/{run}/{study}"

    def responses(self, run: str, evaluation: str) -> str:
        return f"{self.results}/responses/{run}/evaluation={evaluation}/responses.parquet"

    def scores(self, run: str, evaluation: str, scorer: str) -> str:
        return f"{self.results}/scores/{run}/evaluation={evaluation}/scorer={scorer}/scores.parquet"

    def study(self, name: str, file: str) -> str:
        return f"{self.results}/studies/{name}/{file}"

    def work(self, rule: str, of: str) -> str:
        """A folder for unfinished work, which no rule declares."""
        return f"{self.results}/work/{rule}/{of}"
