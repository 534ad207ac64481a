"""Windows of real videos."""

from labkit.papers.lstr.experiment.config import Config
from labkit.papers.lstr.experiment.data import Source


def sources(config: Config) -> tuple[Source, Source]:
    raise NotImplementedError
