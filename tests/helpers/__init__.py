"""What several test files share: data that they make, runs that they start, fixtures of an exported model.

pytest.ini puts tests/ on the path, so that tests import from `helpers`. Programs that tests start in processes of their
own are here too.
"""
