"""Configs: what is refused, and in which words."""

import pytest

from labkit.errors import ConfigError
from labkit.papers.brelu.experiment.config import CONFIGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": ["max"]}, "the paper's own rule, 3.5sigma"),
        ({"rules": ["3.5sigma", "sigma"]}, "no bound rule 'sigma'"),
        ({"levels": [255]}, "between 1 and 127"),
        ({"codec": "hevc", "quality": 60}, "ends at 51; got 60"),
        ({"tasks": []}, "at least one"),
        ({"test_sets": ["Set5", "Set5"]}, "name each once"),
        ({"batch_size": 500, "patches": 100}, "larger than the number of patches"),
        ({"upscales": [1]}, "between 2 and 8"),
        ({"patches": 10**12}, "less than or equal to 10000000"),
        ({"patches": 10**7, "patch_size": 1024}, "do not fit into memory"),
        ({"dept": 3}, "did you mean depth"),
        ({"classification.tuned_rules": ["3.5sigma", "kl"]}, "kl must also stand in rules"),
        ({"classification": {"rules": ["max"], "tuned_rules": ["max"]}}, "the paper's own rule, 3.5sigma"),
        ({"classification.level": [1]}, "did you mean classification.levels"),
    ],
)
def test_bad_configs(changes, message):
    with pytest.raises(ConfigError, match=message):
        CONFIGS["smoke"].override(**changes)


def test_fields_of_the_classifier_are_set_from_the_command_line():
    config = CONFIGS["smoke"].override_text({"classification.levels": "15", "classification.steps": "3"})
    assert (config.classification.levels, config.classification.steps) == ((15,), 3)
    assert config.classification.images == "digits"  # and not what the class has by default
