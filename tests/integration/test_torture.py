"""A short torture run on each transport, with fixed seeds; scripts/torture has the long ones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fantail_lab import TIME_SCALE

_TORTURE = Path(__file__).resolve().parents[2] / "scripts" / "torture"
MINUTES = 1.5
SEEDS = (("tcp", 101), pytest.param("epgm", 102, marks=pytest.mark.epgm))


@pytest.mark.slow
@pytest.mark.parametrize(("transport", "seed"), SEEDS)
def test_files_and_faults_at_random_lose_and_double_nothing(
    bin_dir: Path, tmp_path: Path, transport: str, seed: int
) -> None:
    seed = int(os.environ.get("FANTAIL_SEED", seed))
    log = tmp_path / "torture.log"
    command = [_TORTURE, "--minutes", str(MINUTES), "--seed", str(seed), "--transport", transport, "--log", log]

    done = subprocess.run(
        [*command, "--bin-dir", bin_dir], capture_output=True, text=True, timeout=400 * TIME_SCALE, check=False
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "proven" in done.stdout
