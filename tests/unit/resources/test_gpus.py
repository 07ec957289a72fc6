"""What devices are called."""

import pytest

from app.resources.gpus import gpu_type


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("Tesla V100-PCIE-16GB", "V100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("AMD Instinct MI300X", "MI300X"),
        ("h100", "H100"),
        ("", ""),
    ],
)
def test_a_device_has_the_short_name_people_ask_for(model: str, short: str) -> None:
    assert gpu_type(model) == short
    assert gpu_type(short) == short
