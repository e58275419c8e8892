"""What is loaded for whom: the chains of AWS and of Google only where one of their models is."""

import subprocess
import sys

import pytest

LOOK = """
import sys
from adapters.base import *
from adapters.credentials import Credentials
import app.factory
Credentials([{}])
print(*({{"botocore", "google.auth"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("expected", "loaded"),
    [
        ("None, HeaderCredential('x-api-key', '', Secret('k'))", ""),
        ("AwsCredential('us-east-1', 'bedrock')", "botocore"),
        ("GoogleCredential()", "google.auth"),
    ],
)
def test_a_chain_is_loaded_at_the_start_or_not_at_all(expected: str, loaded: str) -> None:
    look = [sys.executable, "-c", LOOK.format(expected)]
    done = subprocess.run(look, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == loaded
