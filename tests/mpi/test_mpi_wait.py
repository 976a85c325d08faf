"""Ranks that wait for the root patiently use little processor time and get the same numbers."""

from __future__ import annotations

from launch import python

PROGRAM = """
import sys, time
import numpy as np
from pacehpc import Ranks

ranks = Ranks.world()
message = np.zeros(4)
if ranks.rank == 0:
    time.sleep(1.0)
    message[:] = [1, 2, 3, 4]
used = time.process_time()
ranks.receive(message, patiently=True)
used = time.process_time() - used
assert message.tolist() == [1, 2, 3, 4]
if ranks.rank == 1:
    print("used", used)
for k in range(200):
    message[:] = k if ranks.rank == 0 else -1
    ranks.receive(message, patiently=True)
    assert (message == k).all()
"""


def test_patient_ranks_leave_their_core(tmp_path):
    done = python(2, PROGRAM, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("used")[1]) < 0.25
