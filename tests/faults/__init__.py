"""Faults injected into a real Dormice under load, and the history checker that says which promise one has broken.

`history.py` judges, `evidence.py` collects what it judges, `load.py` asks for executions, `stack.py` kills, `soak.py` does all of it at random.
Where a process can be made to die exactly is listed in `src/dormice/crash_points.py`.
"""
