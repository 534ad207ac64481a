"""Claims: what each reads from a result."""

import pytest

from labkit.papers import load


def test_claims_on_a_result_of_known_numbers():
    paper = load("brelu")
    by_key = {claim.key: claim for claim in paper.claims}
    result = {
        "superresolution": {
            "float": 36.0, "float_longer": 36.02, "weights": {"4": 35.5}, "activations": {"max": {"15": 34.5}},
            "tuned": {"max": {"127": 35.99, "31": 35.6, "15": 34.6},
                      "3.5sigma": {"127": 35.98, "31": 35.8, "15": 35.4}},
            "integer": {"127": 35.97},
            "map": {
                "untrained": {"0.25": {"127": 34.0}, "8": {"127": 35.5}},
                "retrained": {"0.25": {"127": 35.0, "31": 35.0, "15": 34.9},
                              "1": {"127": 35.98, "31": 35.8, "15": 35.4},
                              "8": {"127": 35.6, "31": 31.0, "15": 28.0}},
            },
            "published_bytes": {"float_memory": 4000, "integer_memory": 1001, "integer_file": 1040},
        }
    }  # fmt: skip
    wanted = {
        "activations-not-weights": 1.0, "tuned-bound-7-bits": -0.01, "tuned-bound-5-bits": 0.2,
        "tuned-bound-4-bits": 0.8, "too-tight": 0.5, "too-wide": 0.38, "training-mends-clipping": 0.9,
        "integer-superresolution": -0.03, "integer-superresolution-same-budget": -0.05,
        "quarter-of-the-memory": -0.26,
    }  # fmt: skip
    for key, value in wanted.items():
        assert by_key[key].measure(result) == pytest.approx(value), key
    assert by_key["integer-artifacts"].measure(result) is None
    assert len(by_key) == len(paper.claims)


def test_speed_is_read_from_a_benchmark_of_the_same_device():
    by_key = {claim.key: claim for claim in load("brelu").claims}
    work, ours = "VDSR 20x64, 256x256", {"unit": "ms", "ours": 100.0}
    result = {"device": "cpu", "rows": [
        {"workload": work, "peer_name": "float32", "peer": 900.0, "ratio": 9.0, **ours},
        {"workload": work, "peer_name": "ONNX Runtime float32", "peer": 500.0, "ratio": 5.0, **ours},
        {"workload": work, "peer_name": "PyTorch's int8 products", "peer": 250.0, "ratio": 2.5, **ours},
        {"workload": "VDSR 8x16, 256x256", "peer_name": "float32", "peer": 110.0, "ratio": 1.1, **ours},
    ]}  # fmt: skip
    assert by_key["twice-as-fast-cpu"].measure(result) == 5.0
    assert by_key["twice-as-fast"].measure(result) is None
    assert by_key["twice-as-fast-cpu"].measure(result | {"device": "cuda"}) is None
    assert by_key["twice-as-fast-cpu"].measure({"superresolution": {}}) is None
